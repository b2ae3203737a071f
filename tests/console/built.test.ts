import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const sources = join(import.meta.dirname, '../../console')

function filesOf(folder: string): Record<string, string> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) =>
    entry.isFile(),
  )
  const read = entries.map((entry) => {
    const path = join(entry.parentPath, entry.name)
    return [path.slice(folder.length + 1), readFileSync(path, 'utf8')] as const
  })
  return Object.fromEntries(read)
}

describe('console/dist', () => {
  it('is what `npm run build:console` makes of the sources', () => {
    const outDir = mkdtempSync(join(tmpdir(), 'anneal-console-build-'))
    try {
      // In a process of its own: the test runner's NODE_ENV would make another build.
      const vite = join(sources, '../node_modules/vite/bin/vite.js')
      const env = { ...process.env, NODE_ENV: 'production' }
      execFileSync(process.execPath, [vite, 'build', sources, '--outDir', outDir, '--emptyOutDir'], {
        env,
        stdio: 'pipe',
      })
      expect(Object.keys(filesOf(outDir)).sort()).toEqual(Object.keys(filesOf(join(sources, 'dist'))).sort())
      expect(filesOf(outDir)).toEqual(filesOf(join(sources, 'dist')))
    } finally {
      rmSync(outDir, { recursive: true })
    }
  })

  it('asks for nothing from another host', () => {
    for (const [name, content] of Object.entries(filesOf(join(sources, 'dist')))) {
      const addresses = content.match(/https?:\/\/[^\s"'`)]+/g) ?? []
      const foreign = addresses.filter((address) => !address.startsWith('http://www.w3.org/'))
      expect([name, foreign]).toEqual([name, []])
    }
  })
})
