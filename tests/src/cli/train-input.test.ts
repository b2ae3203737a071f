import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { readTrainInput } from '../../../src/cli/support/train-input.ts'

function configFile(text: string, name = 'config.yaml'): string {
  const file = join(mkdtempSync(join(tmpdir(), 'anneal-cli-')), name)
  writeFileSync(file, text)
  return file
}

describe('readTrainInput', () => {
  it('reads key=value pairs that the configuration turns into numbers, booleans and lists', async () => {
    const input = await readTrainInput([
      'model=anneal-tiny',
      'dataset=first,second',
      'learning_rate=1e-4',
      'lora_rank=4',
      'train_on_prompt=true',
    ])
    expect(parseTrainConfig(input)).toMatchObject({
      model_name_or_path: 'anneal-tiny',
      dataset: ['first', 'second'],
      learning_rate: 1e-4,
      lora_rank: 4,
      lora_alpha: 8,
      train_on_prompt: true,
    })
  })

  it('lets pairs win over the file, wherever they stand', async () => {
    const file = configFile('model_name_or_path: base\nlora_rank: 8\nseed: 1\n')
    const input = await readTrainInput(['lora_rank=16', file, 'seed=2'])
    expect(input).toEqual({ model_name_or_path: 'base', lora_rank: '16', seed: '2' })
  })

  it('takes a field of the file back with an empty value or null', async () => {
    const file = configFile('max_samples: 10\nval_size: 0.1\n')
    expect(await readTrainInput([file, 'max_samples=', 'val_size=null'])).toEqual({
      max_samples: null,
      val_size: null,
    })
  })

  it('keeps equals signs inside a value', async () => {
    expect(await readTrainInput(['output_dir=saves/a=b'])).toEqual({ output_dir: 'saves/a=b' })
  })

  it('reads JSON too, and an empty file as no fields', async () => {
    expect(await readTrainInput([configFile('{"seed": 3}', 'config.json')])).toEqual({ seed: 3 })
    expect(await readTrainInput([configFile('# nothing yet\n')])).toEqual({})
  })

  it('refuses two files', async () => {
    await expect(readTrainInput(['a.yaml', 'b.yaml'])).rejects.toThrow(
      'One configuration file at most, then key=value pairs; got "a.yaml" and "b.yaml".',
    )
  })

  it('says which file is missing, and hints at key=value for a lone word', async () => {
    await expect(readTrainInput(['nowhere.yaml'])).rejects.toThrow('File nowhere.yaml not found.')
    await expect(readTrainInput(['lora_rank'])).rejects.toThrow('Fields are given as key=value.')
  })

  it('says where a file is no YAML, and refuses one without fields', async () => {
    await expect(readTrainInput([configFile('seed: [1\nlora_rank: 2\n')])).rejects.toThrow(
      /no valid YAML: .*line/,
    )
    await expect(readTrainInput([configFile('- a\n- b\n')])).rejects.toThrow('must hold fields')
  })
})
