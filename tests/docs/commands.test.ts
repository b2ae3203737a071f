import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { buildProgram } from '../../src/cli/program.ts'
import { FakeServices, fakeOptions } from '../routes/fake-services.ts'

const root = join(import.meta.dirname, '../..')
const pages = [
  'README.md',
  'README.zh.md',
  'bench/README.md',
  'data/README.md',
  'data/make/README.md',
  ...readdirSync(join(root, 'docs')).flatMap((name) => (name.endsWith('.md') ? [`docs/${name}`] : [])),
]
const texts = pages.map((page) => ({ page, text: readFileSync(join(root, page), 'utf8') }))
const found = (pattern: RegExp) =>
  texts.flatMap(({ page, text }) => [...text.matchAll(pattern)].map((match) => [match[1]!, page] as const))
const unique = <T extends readonly [string, string]>(pairs: T[]) => [
  ...new Map(pairs.map((pair) => [pair[0], pair])).values(),
]

/** Words of a command as a shell parts them; comments and continuations are gone. */
function words(line: string): string[] {
  const plain = line.replaceAll(/\\\n\s*/g, ' ').replace(/\s#\s.*$/, '')
  return [...plain.matchAll(/"([^"]*)"|'([^']*)'|(\S+)/g)].map(
    ([, double, single, bare]) => double ?? single ?? bare!,
  )
}

/** A command line that parses as the real one does, but does nothing. */
function parse(line: string): void {
  const program = buildProgram()
  const silence = (command: Command): void => {
    command.configureOutput({ writeOut: () => {}, writeErr: () => {} })
    if (command.commands.length === 0) command.action(() => {})
    for (const child of command.commands) silence(child)
  }
  silence(program)
  program.parse(words(line), { from: 'user' })
}

describe('the documentation', () => {
  const commands = unique(found(/npx anneal ((?:[^\n`|]|\\\n)+)/g)).filter(
    ([line]) => !/^[A-Z]|^$/.test(line),
  )

  it('shows many commands', () => expect(commands.length).toBeGreaterThan(15))

  it.each(commands)('anneal %s (%s) is a command line that exists', (line) => {
    expect(() => parse(line)).not.toThrow()
  })

  it('refuses a command line that does not exist', () => {
    expect(() => parse('train x.yaml --fast')).toThrow(/unknown option/)
  })

  it.each(unique(found(/npm run ([a-z:0-9-]+)/g)))('npm run %s (%s) is a script', (name) => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: object }
    expect(Object.keys(scripts)).toContain(name)
  })

  const { routes } = createApp(new FakeServices().asServices(), fakeOptions())
  const known = routes.map(({ path }) => new RegExp(`^${path.replace(/:\w+(\{[^}]*\})?/g, '[^/]+')}$`))

  it.each(unique(found(/http:\/\/127\.0\.0\.1:8000(\/[\w./:{}-]*)/g)).filter(([path]) => path !== '/v1'))(
    '%s (%s) is a route',
    (path) => {
      const plain = path.replace(/\/$/, '') || '/'
      expect(known.some((pattern) => pattern.test(plain))).toBe(true)
    },
  )

  it('links to files that exist', () => {
    for (const { page, text } of texts) {
      for (const [, link] of text.matchAll(/\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)/g)) {
        expect(existsSync(join(root, dirname(page), link!)), `${page}: ${link}`).toBe(true)
      }
    }
  })
})
