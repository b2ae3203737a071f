import { readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Decoder } from '../../../engine/generate/decoder.ts'
import { expandBlocks } from '../../../engine/models/expand.ts'
import { trainableLayers } from '../../../engine/train/freeze.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { scratchFolder } from '../weights/tiny-model.ts'

const baseFolder = tinyLlama(2)
let scratch: string
beforeEach(() => {
  scratch = scratchFolder()
})
afterEach(() => rmSync(scratch, { recursive: true }))

async function logits(folder: string): Promise<Float32Array> {
  const decoder = await Decoder.load(folder)
  try {
    return await decoder.forward(Int32Array.from([104, 101, 108, 108, 111]), decoder.createCache())
  } finally {
    await decoder.release()
  }
}

describe('expandBlocks', () => {
  it.each([1, 2])('with %i blocks computes what the base does', async (blocks) => {
    const outputFolder = join(scratch, 'larger')
    expect(await expandBlocks({ baseFolder, outputFolder, blocks })).toBe(2 + blocks)
    const config = JSON.parse(readFileSync(join(outputFolder, 'config.json'), 'utf8'))
    expect(config.num_hidden_layers).toBe(2 + blocks)
    expect(await logits(outputFolder)).toEqual(await logits(baseFolder))
  })

  it('puts copies with zeroed branch ends where LLaMA Pro trains', async () => {
    const outputFolder = join(scratch, 'larger')
    await expandBlocks({ baseFolder, outputFolder, blocks: 2 })
    const [base, larger] = [WeightFolder.open(baseFolder), WeightFolder.open(outputFolder)]
    const config = {
      freeze_trainable_layers: 2,
      freeze_trainable_modules: ['all'],
      freeze_extra_modules: undefined,
      use_llama_pro: true,
    }
    const added = trainableLayers(config, 4)
    expect(added).toEqual([1, 3])
    for (const [index, layer] of added.entries()) {
      const read = (name: string) => larger.readFloat32(`model.layers.${layer}.${name}.weight`)
      expect(read('mlp.up_proj')).toEqual(base.readFloat32(`model.layers.${index}.mlp.up_proj.weight`))
      for (const end of ['self_attn.o_proj', 'mlp.down_proj'])
        expect(read(end).every((value) => value === 0)).toBe(true)
      const original = larger.readFloat32(`model.layers.${layer - 1}.mlp.down_proj.weight`)
      expect(original).toEqual(base.readFloat32(`model.layers.${index}.mlp.down_proj.weight`))
    }
    base.close()
    larger.close()
  })

  it('refuses blocks that do not divide the layers', async () => {
    const options = { baseFolder, outputFolder: join(scratch, 'larger'), blocks: 3 }
    await expect(expandBlocks(options)).rejects.toMatchObject({
      code: 'layers_not_divisible',
      message: expect.stringMatching(/^3 new blocks .* 2 layers: .* \(1, 2\)$/),
    })
  })
})
