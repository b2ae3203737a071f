import type { Value } from '../graph/values.ts'
import type { ModelBuilder } from './model-builder.ts'

/** Several projections of one input, as a checkpoint stores them. */
export interface Projections {
  readonly path: string
  /** A module each, or one module whose rows are theirs in turn. */
  readonly names: readonly string[] | string
  readonly inFeatures: number
  /** Output features of each. */
  readonly widths: readonly number[]
  readonly bias: boolean
  readonly expert?: true
}

/** x [tokens, inFeatures] → one [tokens, width] for each width. */
export function project(m: ModelBuilder, x: Value, of: Projections): readonly Value[] {
  const { path, names, inFeatures, widths, bias, expert } = of
  const module = (name: string, outFeatures: number) => ({
    path: `${path}.${name}`,
    inFeatures,
    outFeatures,
    ...(expert ? { expert } : {}),
  })
  if (typeof names !== 'string') {
    const modules = names.map((name, index) => module(name, widths[index]!))
    if (m.joinsProjections && !expert) return m.joinedLinears(x, modules, { bias })
    return modules.map((each) => m.linear(x, each, { bias }))
  }
  const outFeatures = widths.reduce((sum, width) => sum + width, 0)
  const joined = m.linear(x, module(names, outFeatures), { bias })
  return m.g.scope(`${path}.${names}`, () => m.g.Split(joined, 1, widths))
}
