import { multiplyDims, type Value } from '../graph/values.ts'
import type { DecoderConfig } from './config.ts'
import { activate } from './mlp.ts'
import { type ModelBuilder, TOKENS } from './model-builder.ts'
import { project } from './projections.ts'

/**
 * Σ over the chosen experts e of weight_e(x)·mlp_e(x) (+ addend): each token goes through `perToken` of `count` gated
 * mlps (arXiv:2401.04088). Tokens are sorted by expert, so that an expert computes only what it was chosen for, and
 * sorted back; the router learns through the weights. x is [batch*seq, hidden]; path is the layer's.
 */
export function routedExperts(
  m: ModelBuilder,
  config: DecoderConfig,
  path: string,
  x: Value,
  addend: Value | undefined,
): Value {
  const { g } = m
  const { hiddenSize, experts, names } = config
  if (!experts || !names.experts) throw new Error(`${path}: the config describes no experts`)
  const { count, perToken } = experts
  const block = `${path}.${names.experts.block}`
  const choices = multiplyDims(perToken, TOKENS)
  return g.scope(block, () => {
    const { weights, chosen } = route(m, config, block, x)
    const order = g.TopK(chosen, choices, 0, 0)[1]
    const tokenOf = g.Div(order, g.ints([perToken]))
    const sorted = g.Gather(x, tokenOf)
    const sizes = Array.from({ length: count }, (_, expert) => `tokens(${block}.experts.${expert})`)
    const chosenBy = countChoices(m, chosen, count)
    const parts = g.Split(sorted, 0, sizes, chosenBy)
    const mlp = (expert: number) => expertMlp(m, config, `${block}.experts.${expert}`, parts[expert]!)
    const computed = m.stacked
      ? m.stacked.overParts(tokenOf, (rows) => g.Split(rows, 0, sizes, chosenBy), count, mlp)
      : parts.map((_, expert) => mlp(expert))
    // the place of each place in the order: a permutation's inverse
    const back = g.TopK(order, choices, 0, 0)[1]
    const byToken = g.Reshape(g.Gather(g.Concat(computed, 0, choices), back), [TOKENS, perToken, hiddenSize])
    const sum = g.ReduceSum(g.Mul(byToken, g.Reshape(weights, [TOKENS, perToken, 1])), [1], 0)
    return addend ? g.Add(sum, addend) : sum
  })
}

/** Weights [tokens, perToken] and, flat, the experts that they belong to, [tokens·perToken]. */
function route(m: ModelBuilder, config: DecoderConfig, block: string, x: Value) {
  const { g } = m
  const { count, perToken, normalizeWeights } = config.experts!
  const router = m.floatParameter(`${block}.${config.names.experts!.router}.weight`, [
    count,
    config.hiddenSize,
  ])
  const probabilities = g.Softmax(g.Gemm(x, router, { transB: 1 }))
  const [largest, chosen] = g.TopK(probabilities, perToken, 1)
  return {
    weights: normalizeWeights ? g.Div(largest, g.ReduceSum(largest, [1], 1)) : largest,
    chosen: g.Reshape(chosen, [multiplyDims(perToken, TOKENS)]),
  }
}

/** How often each expert was chosen, int64 [count]. */
function countChoices(m: ModelBuilder, chosen: Value, count: number): Value {
  const { g } = m
  const column = g.Reshape(chosen, [chosen.shape[0]!, 1])
  const all = g.Reshape(g.ints(Array.from({ length: count }, (_, expert) => expert)), [1, count])
  return g.ReduceSum(g.Cast(g.Equal(column, all), 'int64'), [0], 0)
}

function expertMlp(m: ModelBuilder, config: DecoderConfig, path: string, x: Value): Value {
  const { hiddenSize: inFeatures, activation } = config
  const { intermediateSize } = config.experts!
  const names = config.names.experts!
  const widths = [intermediateSize, intermediateSize]
  const [gate, up] = project(m, x, {
    path,
    names: names.gateUp,
    inFeatures,
    widths,
    bias: false,
    expert: true,
  })
  const hidden = m.g.Mul(activate(m, activation, gate!), up!)
  return m.linear(hidden, {
    path: `${path}.${names.down}`,
    inFeatures: intermediateSize,
    outFeatures: inFeatures,
    expert: true,
  })
}
