import { mkdirSync, mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { sweepWorkFolders, workFolderOf } from '../../../src/models/work-folder.ts'

it('removes the layers of exports that are over, and nothing else', async () => {
  const exports = mkdtempSync(join(tmpdir(), 'anneal-work-'))
  for (const id of ['export-1', 'export-2']) mkdirSync(workFolderOf(join(exports, id)))
  mkdirSync(join(exports, 'export-3'))
  await sweepWorkFolders(exports, new Set(['export-2']))
  expect(readdirSync(exports).sort()).toEqual(['.export-2.layers', 'export-3'])
})
