import { describe, expect, it } from 'vitest'
import { patternValue, targetedPaths, unmatchedTargets } from '../../../engine/adapter/targets.ts'

const paths = [0, 1, 10].flatMap((layer) =>
  ['self_attn.q_proj', 'self_attn.k_proj', 'mlp.up_proj'].map((name) => `model.layers.${layer}.${name}`),
)
const modules = [...paths, 'lm_head'].map((path) => ({ path }))
const matched = (...rule: [string | string[], Parameters<typeof targetedPaths>[2]?]) => [
  ...targetedPaths(modules, ...rule),
]

describe("PEFT's rules for targets", () => {
  it("'all' is every linear module but the head and routed experts", () => {
    expect(matched('all')).toEqual(paths)
    const expert = { path: 'model.layers.0.mlp.experts.3.up_proj', expert: true as const }
    expect(targetedPaths([expert], 'all').size).toBe(0)
    expect(targetedPaths([expert], ['up_proj']).size).toBe(1)
  })

  it('a name is the end of a path on a dot border', () => {
    expect(matched(['q_proj'])).toHaveLength(3)
    expect(matched(['self_attn.k_proj'])).toHaveLength(3)
    expect(matched(['proj'])).toEqual([])
    expect(matched(['lm_head'])).toEqual(['lm_head'])
  })

  it('other text is an expression for the whole path', () => {
    expect(matched('.*\\.(q|k)_proj')).toHaveLength(6)
    expect(matched('model\\.layers\\.1\\..*')).toHaveLength(3)
    expect(matched('q_proj')).toEqual([])
  })

  it('layers narrow a list, whose pattern names what numbers stand behind', () => {
    expect(matched(['q_proj'], { layers_to_transform: [1, 10] })).toEqual([
      'model.layers.1.self_attn.q_proj',
      'model.layers.10.self_attn.q_proj',
    ])
    expect(matched('all', { layers_to_transform: 1 })).toHaveLength(3)
    expect(matched(['q_proj'], { layers_to_transform: [1], layers_pattern: 'layers' })).toHaveLength(1)
    expect(matched(['q_proj'], { layers_to_transform: [1], layers_pattern: ['h'] })).toEqual([])
  })

  it('a malformed or hostile expression is an error, soon', () => {
    expect(() => matched('(q_proj')).toThrow(/regular expression/)
    const slow = { path: 'a'.repeat(60) }
    expect(() => targetedPaths([slow], '(a+)+b')).toThrow(/regular expression.*timed out/)
  })

  it('says which names match nothing', () => {
    expect(unmatchedTargets(modules, ['q_proj', 'wq', 'o_proj'])).toEqual(['wq', 'o_proj'])
  })

  it('patterns give modules numbers of their own; the first that matches wins', () => {
    const pattern = { 'layers.1.self_attn.q_proj': 2, q_proj: 4, 'layers\\.\\d+\\.mlp.*': 6 }
    expect(patternValue(pattern, paths[0]!, 8)).toBe(4)
    expect(patternValue(pattern, paths[3]!, 8)).toBe(2)
    expect(patternValue(pattern, paths[2]!, 8)).toBe(6)
    expect(patternValue(pattern, paths[1]!, 8)).toBe(8)
  })
})
