import type { Value } from '../graph/values.ts'
import type { LinearModule } from './linear-module.ts'
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
  const { path, names, widths, bias } = of
  const joined = projectJoined(m, x, of)
  if (joined) return m.g.scope(`${path}.${[names].flat().join('+')}`, () => m.g.Split(joined, 1, widths))
  return modulesOf(of).map((each) => m.linear(x, each, { bias }))
}

/** All of them side by side, [tokens, sum of widths], where they are computed in one product; else undefined. */
export function projectJoined(m: ModelBuilder, x: Value, of: Projections): Value | undefined {
  const modules = modulesOf(of)
  if (modules.length === 1) return m.linear(x, modules[0]!, { bias: of.bias })
  return m.joinsProjections && !of.expert ? m.joinedLinears(x, modules, { bias: of.bias }) : undefined
}

function modulesOf({ path, names, inFeatures, widths, expert }: Projections): LinearModule[] {
  const sizes =
    typeof names === 'string'
      ? [[names, sum(widths)] as const]
      : names.map((name, at) => [name, widths[at]!] as const)
  return sizes.map(([name, outFeatures]) => ({
    path: `${path}.${name}`,
    inFeatures,
    outFeatures,
    ...(expert ? { expert } : {}),
  }))
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}
