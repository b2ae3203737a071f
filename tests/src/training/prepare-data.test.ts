import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { sequencesOf } from '../../../engine/text/conversation.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { DatasetRegistry } from '../../../src/datasets/registry.ts'
import { prepareData } from '../../../src/training/prepare-data.ts'
import { byteTokenizerFolder, writeModelFolder } from '../../engine/text/byte-tokenizer.ts'

const CUTOFF = 64

/** A registry with one alpaca set whose outputs have the given lengths in bytes, which are tokens here. */
function registryOf(outputLengths: readonly number[]): DatasetRegistry {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-prepare-'))
  const rows = outputLengths.map((length) => ({ instruction: 'go', input: '', output: 'x'.repeat(length) }))
  writeFileSync(join(folder, 'rows.json'), JSON.stringify(rows))
  writeFileSync(join(folder, 'dataset_info.json'), JSON.stringify({ rows: { file_name: 'rows.json' } }))
  return new DatasetRegistry({ directories: [folder] })
}

async function prepare(
  outputLengths: readonly number[],
  fields: Record<string, unknown> = {},
  folder = byteTokenizerFolder(),
) {
  const config = parseTrainConfig({ model: 'tiny', dataset: 'rows', cutoff_len: CUTOFF, ...fields })
  const tokenizer = loadTokenizer(folder)
  return prepareData({ config, tokenizer, datasets: registryOf(outputLengths) })
}

describe('prepareData', () => {
  it('cuts examples at cutoff_len and counts them', async () => {
    const { examples, truncated } = await prepare([1, 500])
    expect(examples.flatMap(sequencesOf).map(({ inputIds }) => inputIds.length <= CUTOFF)).toEqual([
      true,
      true,
    ])
    expect(truncated).toBe(1)
  })

  it('packs examples that were cut too, one token shorter, and loses none', async () => {
    const { examples, truncated, warnings } = await prepare([500, 500, 500], { packing: true })
    expect(examples.flatMap(sequencesOf).map(({ inputIds }) => inputIds.length)).toEqual([
      CUTOFF - 1,
      CUTOFF - 1,
      CUTOFF - 1,
    ])
    expect(truncated).toBe(3)
    expect(warnings.map(({ code }) => code)).not.toContain('too_long_to_pack')
  })

  it('warns when answers of a template hold no end token of the model', async () => {
    const endless = byteTokenizerFolder('{% for message in messages %}{{ message.content }} {% endfor %}')
    const { warnings } = await prepare([3], {}, endless)
    expect(warnings.find(({ code }) => code === 'no_end_of_turn')?.message).toContain('may not stop')
  })

  it("ends raw texts with Llama 3's end of text, which is not what ends its turns, in both ways of stage pt", async () => {
    const tokenizer = JSON.parse(readFileSync(join(byteTokenizerFolder(), 'tokenizer.json'), 'utf8'))
    const ends = ['<|eot_id|>', '<|end_of_text|>'].map((content, index) => ({
      ...tokenizer.added_tokens[0],
      id: 258 + index,
      content,
    }))
    const folder = writeModelFolder({
      'tokenizer.json': { ...tokenizer, added_tokens: [...tokenizer.added_tokens, ...ends] },
      'tokenizer_config.json': { eos_token: '<|eot_id|>' },
    })
    for (const packing of [true, false]) {
      const pt = { stage: 'pt', template: 'llama3', packing, cutoff_len: 3 }
      const [example] = (await prepare([5], pt, folder)).examples.flatMap(sequencesOf)
      expect([...example!.inputIds]).toEqual([103, 111, 259])
    }
  })

  it('names the row that a chat template refuses', async () => {
    const picky = byteTokenizerFolder(
      "{% if 'xx' in messages[-1].content %}{{ raise_exception('no x') }}{% endif %}",
    )
    await expect(prepare([1, 2], {}, picky)).rejects.toMatchObject({
      param: 'dataset',
      message: expect.stringContaining(
        'Dataset rows: rows.json row 2: The chat template refuses these messages: no x',
      ),
    })
  })

  it('names eval_dataset where that is unknown', async () => {
    await expect(prepare([5], { eval_dataset: 'absent' })).rejects.toMatchObject({
      code: 'unknown_dataset',
      param: 'eval_dataset',
    })
  })

  it('refuses an unknown template where texts are packed, too', async () => {
    await expect(prepare([5], { stage: 'pt', template: 'llama9', cutoff_len: 3 })).rejects.toMatchObject({
      code: 'unknown_template',
    })
  })

  it('names each dataset that has no token to learn within the cutoff', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-prepare-'))
    const write = (name: string, content: unknown) =>
      writeFileSync(join(folder, name), JSON.stringify(content))
    write('long.json', [{ instruction: 'go', output: 'x'.repeat(200) }])
    // Of four tokens the short answer's share, by length, is none.
    write('short.json', [{ instruction: 'go', output: 'x' }])
    write('dataset_info.json', { long: { file_name: 'long.json' }, short: { file_name: 'short.json' } })
    const datasets = new DatasetRegistry({ directories: [folder] })
    const tokenizer = loadTokenizer(byteTokenizerFolder())
    const config = parseTrainConfig({ model: 'tiny', dataset: 'long,short', cutoff_len: 4 })
    await expect(prepareData({ config, tokenizer, datasets })).rejects.toMatchObject({
      code: 'no_valid_samples',
      message: expect.stringContaining('Dataset short: no example has a token to learn'),
    })
    const evaluated = { model: 'tiny', dataset: 'long', eval_dataset: 'short', cutoff_len: 4 }
    await expect(
      prepareData({ config: parseTrainConfig(evaluated), tokenizer, datasets }),
    ).rejects.toMatchObject({ message: expect.stringContaining('Dataset short') })
  })
})
