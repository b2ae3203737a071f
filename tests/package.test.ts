import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const lock = JSON.parse(readFileSync(join(import.meta.dirname, '../package-lock.json'), 'utf8')) as {
  packages: Record<string, { resolved?: string; hasInstallScript?: boolean }>
}

describe('package-lock.json', () => {
  it('names no registry', () => {
    const named = Object.entries(lock.packages).filter(([, { resolved }]) => resolved !== undefined)
    expect(named).toEqual([])
  })

  // npm runs no script that the lock file does not know of; allowScripts in package.json says the same, to newer npm alone.
  // onnxruntime-node's would download CUDA's library, which `anneal device install cuda` does when asked, and nothing
  // needs the others. An upgrade of such a package brings `hasInstallScript` back: take it out again.
  it('knows one install script, that of better-sqlite3', () => {
    const names = Object.entries(lock.packages).filter(([, { hasInstallScript }]) => hasInstallScript)
    expect(names.map(([name]) => name)).toEqual(['', 'node_modules/better-sqlite3'])
    expect(lock.packages['node_modules/onnxruntime-node']).toBeDefined()
  })
})
