import { execFileSync } from 'node:child_process'
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const root = resolve(import.meta.dirname, '../..')
const PARTS = ['bin', 'src', 'routes', 'engine', 'migrations', 'data/models', 'package.json', 'tsconfig.json']

let clone: string

beforeAll(() => {
  clone = mkdtempSync(join(tmpdir(), 'anneal-bundle-test-'))
  for (const part of PARTS) cpSync(join(root, part), join(clone, part), { recursive: true })
  cpSync(join(root, 'wrangler-free.config.ts'), join(clone, 'wrangler-free.config.ts'))
  symlinkSync(join(root, 'node_modules'), join(clone, 'node_modules'))
  node('bin/bundle.js')
}, 120_000)

afterAll(() => rmSync(clone, { recursive: true, force: true }))

const node = (...args: string[]) => execFileSync(process.execPath, args, { cwd: clone, encoding: 'utf8' })

/** Whether the next start takes the bundle: one that says so stands in its place. */
function takesBundle(): boolean {
  return node('bin/anneal.js', '--version').includes('bundled')
}

describe('the bundle', () => {
  it('starts every program, with the code that V8 kept from its rehearsal', () => {
    const files = readdirSync(join(clone, 'bundle'))
    for (const name of ['cli.cjs', 'host.cjs', 'worker.cjs', 'checker.cjs', 'manifest.json']) {
      expect(files).toContain(name)
    }
    const code = files.filter((name) => name.endsWith('.cache')).map((name) => name.split('.')[0])
    expect(code.sort()).toEqual(['cli', 'host'])
    expect(node('bin/anneal.js', '--help')).toContain('anneal serve --port 8000')
  })

  it('is taken as long as no file that it was made of has another content', () => {
    const marked = "(function () { process.stdout.write('bundled') })"
    writeFileSync(join(clone, 'bundle/cli.cjs'), marked)
    expect(takesBundle()).toBe(true)
    utimesSync(join(clone, 'engine/errors.ts'), 1, 2)
    expect(takesBundle()).toBe(true)
    appendFileSync(join(clone, 'engine/errors.ts'), '// changed\n')
    expect(takesBundle()).toBe(false)
  })

  it('is not needed: without it programs start from their sources', () => {
    rmSync(join(clone, 'bundle'), { recursive: true })
    expect(takesBundle()).toBe(false)
    expect(existsSync(join(clone, 'bundle'))).toBe(false)
  })
})
