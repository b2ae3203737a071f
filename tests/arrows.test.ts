import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '..')

/** Which folders a room may import from, besides itself; docs/ARCHITECTURE.md draws the same arrows. */
const allowedRooms: Record<string, readonly string[]> = {
  engine: [],
  routes: [],
  src: ['routes', 'engine', 'wrangler-free.config.ts'],
  console: [],
}
/** Packages that only one place may import. */
const confinedPackages: Record<string, string> = {
  'onnxruntime-node': 'engine/onnx/session.ts',
  koffi: 'engine/onnx/ort-api.ts',
  'drizzle-orm': 'src/db/',
  'better-sqlite3': 'src/db/',
}

function sourceFiles(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.tsx?$/.test(name))
    .map((name) => join(folder, name))
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(root, file), 'utf8')
  const pattern =
    /(?:^|\n)\s*(?:import|export)\b[^'"]*?from\s*['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)import\s*['"]([^'"]+)['"]/g
  return [...text.matchAll(pattern)].map((match) => (match[1] ?? match[2] ?? match[3])!)
}

/** Files of this package that a file imports, by their paths from its root. */
function localImportsOf(file: string): string[] {
  return importsOf(file)
    .filter((specifier) => specifier.startsWith('.'))
    .map((specifier) => relative(root, resolve(root, dirname(file), specifier)))
}

function roomViolations(room: string): string[] {
  const allowed = [room, ...allowedRooms[room]!]
  return sourceFiles(room).flatMap((file) =>
    localImportsOf(file)
      .filter((target) => !allowed.includes(target.split('/')[0]!) && !allowed.includes(target))
      .map((target) => `${file} imports ${target}`),
  )
}

/** A folder directly below a room, with all that lies in it; a file directly below the room stands for itself. */
const placeOf = (file: string) => file.split('/').slice(0, 2).join('/')

/** What the folders of a room import of each other. */
function folderArrows(room: string): Map<string, Set<string>> {
  const arrows = new Map<string, Set<string>>()
  for (const file of sourceFiles(room)) {
    const from = placeOf(file)
    const targets = arrows.get(from) ?? new Set()
    arrows.set(from, targets)
    for (const target of localImportsOf(file)) {
      const to = placeOf(target)
      if (to !== from && to.startsWith(`${room}/`)) targets.add(to)
    }
  }
  return arrows
}

/** What is left of the arrows when folders that import no other, or that no other imports, are taken away, again and again. */
function circlesOf(arrows: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  let left = [...arrows].flatMap(([from, targets]) => [...targets].map((to) => ({ from, to })))
  for (let before = Number.POSITIVE_INFINITY; left.length < before; ) {
    before = left.length
    const [importing, imported] = [new Set(left.map(({ from }) => from)), new Set(left.map(({ to }) => to))]
    left = left.filter(({ from, to }) => imported.has(from) && importing.has(to))
  }
  return left.map(({ from, to }) => `${from} → ${to}`)
}

function packageViolations(name: string, place: string): string[] {
  return Object.keys(allowedRooms)
    .flatMap(sourceFiles)
    .filter((file) => !file.startsWith(place))
    .filter((file) => importsOf(file).some((target) => target === name || target.startsWith(`${name}/`)))
    .map((file) => `${file} imports ${name}`)
}

describe('arrows between rooms', () => {
  for (const room of Object.keys(allowedRooms)) {
    it(`${room} imports only ${[room, ...allowedRooms[room]!].join(', ')}`, () => {
      expect(sourceFiles(room).length).toBeGreaterThan(0)
      expect(roomViolations(room)).toEqual([])
    })
  }

  for (const room of ['engine', 'src']) {
    it(`the folders of ${room} import each other in no circle`, () => {
      const arrows = folderArrows(room)
      expect(arrows.size).toBeGreaterThan(10)
      expect(circlesOf(arrows)).toEqual([])
    })
  }

  for (const [name, place] of Object.entries(confinedPackages)) {
    it(`only ${place} imports ${name}`, () => {
      expect(packageViolations(name, place)).toEqual([])
    })
  }

  it('the engine reads no environment, prints nothing and opens no connection', () => {
    const forbidden = /\bconsole\.|\bprocess\.env\b|from 'node:(?:http|https|net)'|from 'hono/
    const offenders = sourceFiles('engine').filter((file) =>
      forbidden.test(readFileSync(join(root, file), 'utf8')),
    )
    expect(offenders).toEqual([])
  })
})
