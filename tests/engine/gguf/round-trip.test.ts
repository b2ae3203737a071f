import { mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { ggufFileName, writeGguf } from '../../../engine/export/gguf.ts'
import { importGguf } from '../../../engine/gguf/import.ts'
import { openModel } from '../../../engine/models/index.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { scratchFolder } from '../weights/tiny-model.ts'

const scratch = scratchFolder()
afterAll(() => rmSync(scratch, { recursive: true }))

it("keeps YaRN's rope scaling as it was", async () => {
  const folder = join(scratch, 'yarn')
  mkdirSync(folder)
  for (const name of readdirSync(ANNEAL_TINY)) symlinkSync(join(ANNEAL_TINY, name), join(folder, name))
  const config = JSON.parse(readFileSync(join(ANNEAL_TINY, 'config.json'), 'utf8'))
  const scaling = { type: 'yarn', factor: 4, original_max_position_embeddings: 128, attention_factor: 1.25 }
  rmSync(join(folder, 'config.json'))
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, rope_scaling: scaling }))
  const out = join(scratch, 'yarn-gguf')
  mkdirSync(out)
  await writeGguf(out, { model: openModel(folder), type: 'BF16' })
  const back = join(scratch, 'yarn-back')
  await importGguf({ file: join(out, ggufFileName('BF16')), outputFolder: back })
  const { scaling: read } = openModel(back).config.layerAttention[0]!.rope
  const expected = openModel(folder).config.layerAttention[0]!.rope.scaling!
  expect(read).toEqual({ ...expected, attentionFactor: expect.closeTo(1.25, 6) })
})

describe('a model that goes out as GGUF and comes back', () => {
  it('has the same weights bit for bit at its own width, the same config and the same tokens', async () => {
    const model = openModel(ANNEAL_TINY)
    const out = join(scratch, 'gguf')
    mkdirSync(out)
    // anneal-tiny's own width: nothing is rounded on the way out.
    await writeGguf(out, { model, type: 'BF16' })
    const back = join(scratch, 'back')
    await importGguf({ file: join(out, ggufFileName('BF16')), outputFolder: back })

    const [before, after] = [model.weights, WeightFolder.open(back)]
    expect([...after.entries.keys()].sort()).toEqual([...before.entries.keys()].sort())
    for (const name of before.entries.keys()) {
      expect(Buffer.compare(after.readRaw(name), before.readRaw(name)), name).toBe(0)
    }
    expect(openModel(back).config).toEqual(model.config)
    const [theirs, ours] = [loadTokenizer(ANNEAL_TINY), loadTokenizer(back)]
    expect(ours.chatTemplate).toBe(theirs.chatTemplate)
    expect(ours.eosTokenIds).toEqual(theirs.eosTokenIds)
    for (const text of [
      'Who are you?',
      '  12 apples\n\ncost 3,50 €',
      '<|im_start|>user\nhi<|im_end|>',
      '漢字 🙂',
    ]) {
      expect([...ours.encode(text)], text).toEqual([...theirs.encode(text)])
    }
  })
})
