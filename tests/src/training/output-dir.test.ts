import { mkdirSync, mkdtempSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { placeOutput } from '../../../src/training/output-dir.ts'

const saves = mkdtempSync(join(tmpdir(), 'anneal-saves-'))

function place(output_dir?: string, resume_from_checkpoint?: string | boolean, trusted = false) {
  const config = { output_dir, resume_from_checkpoint, finetuning_type: 'lora' as const }
  return placeOutput({ config, modelId: 'run-1:ckpt-step-2', saves, trusted })
}

describe('placeOutput', () => {
  it("names a folder after model, type and time as LLaMA-Factory's web page does", () => {
    const folder = place()
    expect(folder.slice(saves.length)).toMatch(/^\/run-1_ckpt-step-2\/lora\/train_\d{4}(-\d\d){5}$/)
    mkdirSync(folder, { recursive: true })
    expect(place()).not.toBe(folder)
  })

  it('puts a relative name below the saves directory, also where the name says saves/', () => {
    expect(place('a/b c')).toBe(join(saves, 'a/b c'))
    expect(place('saves/a/b')).toBe(join(saves, 'a/b'))
  })

  it.each([
    '/etc',
    '..',
    'a/../../b',
    '../x',
    '.',
    '',
    'a//b',
    'a\\b',
    '.trash',
    'merges/x',
    'exports',
    'evaluations/x',
    'fine-tuning',
    'files/a',
    'saves/files',
    'anneal.db',
    'server.json',
    'a/\0',
    'saves/',
  ])('refuses %j from a client', (name) => {
    expect(() => place(name)).toThrow(expect.objectContaining({ kind: 'invalid', param: 'output_dir' }))
  })

  it('refuses a link that leads out', () => {
    symlinkSync(tmpdir(), join(saves, 'link'))
    expect(() => place('link/run')).toThrow(/inside the saves directory/)
  })

  it('takes a checkpoint by name only from a client, and any folder from the terminal', () => {
    expect(place('a', 'checkpoint-10')).toBe(join(saves, 'a'))
    expect(() => place('a', '/etc/checkpoint-1')).toThrow(
      expect.objectContaining({ param: 'resume_from_checkpoint' }),
    )
    expect(place('/tmp/x', '/tmp/y/checkpoint-1', true)).toBe('/tmp/x')
  })
})
