import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { changeJson } from '../../../engine/weights/json-edit.ts'

describe('changeJson', () => {
  it('leaves what it does not change as it is written', () => {
    const text =
      '{\n  "cap": 30.0,\n  "eps": 1e-06,\n  "rope": {"dtype": 1.0, "x": [1.0, "}"]},\n  "dtype": "bfloat16"\n}\n'
    expect(changeJson(text, { dtype: 'float16' })).toBe(text.replace('"bfloat16"', '"float16"'))
    expect(changeJson(text, { rope: null })).toBe(text.replace(/\{"dtype".*\}/, 'null'))
    expect(changeJson(text, { added: { a: [1] } })).toContain(
      '"dtype": "bfloat16",\n  "added": {\n    "a": [',
    )
    expect(changeJson('{}', { a: 1 })).toBe('{\n  "a": 1\n}')
  })

  it('comes to the same object as setting the members', () => {
    const name = fc.oneof(fc.string(), fc.constantFrom('a', '"', '\\', '__proto', 'a:b', '{'))
    const object = fc.dictionary(name, fc.jsonValue({ maxDepth: 3 }) as fc.Arbitrary<unknown>)
    fc.assert(
      fc.property(object, object, fc.constantFrom(undefined, 2, '\t'), (before, changes, indent) => {
        const text = JSON.stringify(before, null, indent)
        expect(JSON.parse(changeJson(text, changes))).toEqual(
          JSON.parse(JSON.stringify({ ...before, ...changes })),
        )
      }),
      { seed: 3, numRuns: 300 },
    )
  })
})
