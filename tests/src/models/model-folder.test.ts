import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { contextLength, readModelFacts } from '../../../src/models/model-folder.ts'
import { quantizedFolder } from '../../engine/quant/quantized-folder.ts'

const scratch = mkdtempSync(join(tmpdir(), 'anneal-facts-'))
afterAll(() => rmSync(scratch, { recursive: true }))

describe('a base that comes quantized', () => {
  it('has a context length as any other', () => {
    const { folder } = quantizedFolder(join(scratch, 'gptq'), 'gptq')
    expect(readModelFacts(folder).isQuantized).toBe(true)
    expect(contextLength(folder)).toBe(4096)
  })
})
