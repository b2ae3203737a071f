import { describe, expect, it } from 'vitest'
import { type FreezeConfig, freezeSelection, trainableLayers } from '../../../engine/train/freeze.ts'

const names = [
  'model.embed_tokens.weight',
  ...Array.from({ length: 6 }, (_, layer) =>
    ['self_attn.q_proj', 'mlp.up_proj', 'input_layernorm'].map(
      (name) => `model.layers.${layer}.${name}.weight`,
    ),
  ).flat(),
  'model.norm.weight',
  'lm_head.weight',
]
const config = (fields: Partial<FreezeConfig> = {}): FreezeConfig => ({
  freeze_trainable_layers: 2,
  freeze_trainable_modules: ['all'],
  freeze_extra_modules: undefined,
  use_llama_pro: false,
  ...fields,
})
const trained = (fields: Partial<FreezeConfig>) => names.filter(freezeSelection(config(fields), names, 6))

describe('freeze training', () => {
  it('trains the last n layers, or the first n for -n', () => {
    expect(trainableLayers(config(), 6)).toEqual([4, 5])
    expect(trainableLayers(config({ freeze_trainable_layers: -1 }), 6)).toEqual([0])
    expect(trained({})).toHaveLength(6)
  })

  it('trains named modules of them, and whole modules outside', () => {
    expect(trained({ freeze_trainable_modules: ['mlp'], freeze_extra_modules: ['norm', 'lm_head'] })).toEqual(
      [
        'model.layers.4.mlp.up_proj.weight',
        'model.layers.5.mlp.up_proj.weight',
        'model.norm.weight',
        'lm_head.weight',
      ],
    )
  })

  it('trains the blocks that were put in with LLaMA Pro: each the last of its group', () => {
    expect(trainableLayers(config({ use_llama_pro: true }), 6)).toEqual([2, 5])
    expect(() => trainableLayers(config({ use_llama_pro: true, freeze_trainable_layers: 4 }), 6)).toThrow(
      /num_layers 6 should be divisible by freeze_trainable_layers 4/,
    )
  })

  it('refuses modules that are not there, with those that are, and more layers than there are', () => {
    expect(() => trained({ freeze_trainable_modules: ['attention'] })).toThrow(
      /freeze_trainable_modules: attention is not found, please choose from self_attn, mlp, input_layernorm/,
    )
    expect(() => trained({ freeze_extra_modules: ['head'] })).toThrow(
      /choose from embed_tokens, norm, lm_head/,
    )
    expect(() => trained({ freeze_trainable_layers: 7 })).toThrow(/7 is more than the 6 layers/)
  })
})
