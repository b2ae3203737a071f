import { describe, expect, it } from 'vitest'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import { cutIntoStages } from '../../../engine/graph/stages.ts'

/** A residual block: norm, product, sum; then the same again, with a mask that does not depend on the source. */
function block() {
  const g = new GraphBuilder()
  const source = g.input('source', 'float32', ['rows', 4])
  const mask = g.Mul(g.input('mask', 'float32', ['rows', 4]), g.scalar(2))
  const scale = g.input('scale', 'float32', [4])
  const weight = g.input('weight', 'float32', [4, 4])
  const norm = (x: typeof source) => g.SimplifiedLayerNormalization(x, scale, 1e-5)[0]
  const first = norm(source)
  const middle = g.Add(g.Gemm(g.Mul(first, mask), weight), source)
  const second = norm(middle)
  const output = g.Add(g.Gemm(g.Mul(second, mask), weight), middle)
  return { g, source, first, middle, second, output }
}

const names = (values: readonly { name: string }[]) => values.map(({ name }) => name)

describe('cutIntoStages', () => {
  const { g, source, first, middle, second, output } = block()
  const cut = (again: string[]) =>
    cutIntoStages(g.nodes, source, [first, second, output], new Set(again) as never)

  it('passes on what later stages read, each value once', () => {
    const stages = cut([])
    expect(stages.map(({ reads }) => names(reads).sort())).toEqual([
      ['source'],
      [first.name, 'source'].sort(),
      [middle.name, second.name].sort(),
    ])
    expect(stages.map(({ passes }) => names(passes).sort())).toEqual([
      [first.name],
      [middle.name, second.name].sort(),
      [],
    ])
    expect([...stages[1]!.readsLast].sort()).toEqual([first.name, 'source'].sort())
  })

  it('computes a cheap operation again instead of passing its result on', () => {
    const stages = cut(['SimplifiedLayerNormalization'])
    expect(stages.map(({ passes }) => names(passes))).toEqual([[], [middle.name], []])
    expect(stages.map(({ nodes }) => nodes.filter(({ op }) => op.startsWith('Simplified')).length)).toEqual([
      1, 2, 1,
    ])
  })

  it('makes what does not depend on the source in every stage that reads it', () => {
    const doublings = cut([]).map(
      ({ nodes }) => nodes.filter(({ inputs }) => inputs[0]?.name === 'mask').length,
    )
    expect(doublings).toEqual([0, 1, 1])
  })
})
