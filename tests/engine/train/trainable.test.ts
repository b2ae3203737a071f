import { describe, expect, it } from 'vitest'
import { type PeftConfigFields, peftConfig } from '../../../engine/adapter/peft-config.ts'
import { countAdapter } from '../../../engine/train/trainable.ts'

const tensors = [
  { name: 'model.embed_tokens.weight', shape: [100, 16] },
  { name: 'model.layers.0.self_attn.q_proj.weight', shape: [16, 16] },
  { name: 'model.layers.0.mlp.up_proj.weight', shape: [32, 16] },
  { name: 'model.norm.weight', shape: [16] },
  { name: 'lm_head.weight', shape: [100, 16] },
]
const linears = [
  { path: 'model.layers.0.self_attn.q_proj', inFeatures: 16, outFeatures: 16 },
  { path: 'model.layers.0.mlp.up_proj', inFeatures: 16, outFeatures: 32 },
  { path: 'model.layers.1.mlp.experts.0.up_proj', inFeatures: 16, outFeatures: 8, expert: true as const },
]
const count = (fields: Partial<PeftConfigFields>) =>
  countAdapter(
    peftConfig({
      r: 4,
      lora_alpha: 8,
      target_modules: 'all-linear',
      base_model_name_or_path: null,
      ...fields,
    }),
    linears,
    tensors,
  )

describe('countAdapter', () => {
  it('counts rank × (in + out) for each linear module that is targeted, experts only by name', () => {
    expect(count({})).toBe(4 * 32 + 4 * 48)
    expect(count({ target_modules: ['q_proj'] })).toBe(4 * 32)
    expect(count({ target_modules: ['up_proj'] })).toBe(4 * 48 + 4 * 24)
    expect(count({ rank_pattern: { up_proj: 2 } })).toBe(4 * 32 + 2 * 48)
  })

  it("counts DoRA's magnitudes and whole tensors", () => {
    expect(count({ use_dora: true })).toBe(4 * 32 + 16 + 4 * 48 + 32)
    expect(count({ target_modules: ['q_proj'], modules_to_save: ['lm_head'] })).toBe(4 * 32 + 1600)
  })

  it('refuses targets that match nothing, and ranks above a matrix, by name', () => {
    expect(() => count({ target_modules: ['q_proj', 'wq'] })).toThrow(/lora_target wq .*q_proj, up_proj/)
    expect(() => count({ target_modules: 'model\\.layers\\.7\\..*' })).toThrow(/matches no linear module/)
    expect(() => count({ rank_pattern: { wq: 2 } })).toThrow(/rank_pattern: wq matches no module/)
    expect(() => count({ modules_to_save: ['wte'] })).toThrow(/additional_target wte matches no module/)
    expect(() => count({ r: 17 })).toThrow(
      /lora_rank 17 is above what .*q_proj \[16,16\] can have; at most 16/,
    )
  })

  it('refuses layers that the model does not have, also beside others that it has', () => {
    for (const layers_to_transform of [[99], [0, 99], 99]) {
      expect(() => count({ layers_to_transform, target_modules: ['q_proj'] })).toThrow(
        expect.objectContaining({
          param: 'layers_to_transform',
          message: expect.stringContaining('layers_to_transform: 99 has no module'),
        }),
      )
    }
    expect(count({ layers_to_transform: [0], target_modules: ['q_proj'] })).toBe(4 * 32)
    expect(() => count({ layers_to_transform: [0], target_modules: ['wq'] })).toThrow(/lora_target wq/)
  })

  it('refuses dropout and DoRA on experts, which PEFT would not load', () => {
    const onExperts = { target_modules: ['q_proj', 'up_proj'] }
    expect(() => count({ ...onExperts, lora_dropout: 0.1 })).toThrow(/lora_dropout does not work .* experts/)
    expect(() => count({ ...onExperts, use_dora: true })).toThrow(/use_dora does not work .* experts/)
    expect(count({ lora_dropout: 0.1, use_dora: true })).toBeGreaterThan(0)
  })
})
