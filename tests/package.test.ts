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

  // It downloads CUDA's library from elsewhere, which `anneal device install cuda` does when asked. npm runs no script that
  // the lock file does not know of; allowScripts in package.json says the same, to newer npm alone. An upgrade of
  // the package brings the line back.
  it("knows no install script of onnxruntime-node's", () => {
    expect(lock.packages['node_modules/onnxruntime-node']).toBeDefined()
    expect(lock.packages['node_modules/onnxruntime-node']?.hasInstallScript).toBeUndefined()
  })
})
