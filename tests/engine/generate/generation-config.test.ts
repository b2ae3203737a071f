import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readSamplingDefaults } from '../../../engine/generate/generation-config.ts'
import { DEFAULT_SAMPLING } from '../../../engine/generate/sampling-params.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'anneal-generation-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

describe('readSamplingDefaults', () => {
  it("is OpenAI's defaults without a file", () => {
    expect(readSamplingDefaults(folder)).toEqual(DEFAULT_SAMPLING)
  })

  it("takes the model authors' values, and ignores null", () => {
    writeFileSync(
      join(folder, 'generation_config.json'),
      JSON.stringify({ temperature: 0.7, top_p: 0.8, top_k: 20, min_p: null, repetition_penalty: 1.05 }),
    )
    expect(readSamplingDefaults(folder)).toEqual({
      ...DEFAULT_SAMPLING,
      temperature: 0.7,
      topP: 0.8,
      topK: 20,
      minP: 0,
      repetitionPenalty: 1.05,
    })
  })

  it('names the file and the value that is out of range', () => {
    writeFileSync(join(folder, 'generation_config.json'), '{"top_p": 7}')
    expect(() => readSamplingDefaults(folder)).toThrow(/generation_config\.json: top_p is 7/)
  })
})
