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

function roomViolations(room: string): string[] {
  const allowed = [room, ...allowedRooms[room]!]
  return sourceFiles(room).flatMap((file) =>
    importsOf(file)
      .filter((specifier) => specifier.startsWith('.'))
      .map((specifier) => relative(root, resolve(root, dirname(file), specifier)))
      .filter((target) => !allowed.includes(target.split('/')[0]!) && !allowed.includes(target))
      .map((target) => `${file} imports ${target}`),
  )
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
