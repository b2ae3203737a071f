import { EngineError } from '../errors.ts'
import { type Architecture, queryScaleWidth } from '../gguf/families.ts'
import type { DecoderConfig, RopeScaling } from '../nn/config.ts'

/**
 * Compares what llama.cpp's code for an architecture takes for granted with what the model's config says.
 *
 * @throws EngineError `unsupported` naming the first difference: such a file would load and answer wrongly, or not load.
 */
export function checkArchitectureFits(architecture: Architecture, config: DecoderConfig): void {
  const difference = differences(architecture, config).find(([differs]) => differs)
  if (!difference) return
  const message = `llama.cpp's ${architecture.name} has no place for ${difference[1]}, so this model is not written as GGUF`
  throw new EngineError('unsupported', 'gguf_unsupported', message, { param: 'format' })
}

function differences(architecture: Architecture, config: DecoderConfig): [differs: boolean, what: string][] {
  const { name, output } = architecture
  const { activation, headDim, heads, hiddenSize, bias, scoreSoftCap, logitSoftCap, attentionScale } = config
  const scale = 1 / Math.sqrt(queryScaleWidth(architecture, config))
  return [
    [activation !== (architecture.gelu ? 'gelu_tanh' : 'silu'), `the activation ${activation}`],
    [
      architecture.squareHeads === true && heads * headDim !== hiddenSize,
      `${heads} heads of ${headDim} in a width of ${hiddenSize}`,
    ],
    [
      Math.abs(attentionScale - scale) > 1e-6 * scale,
      `an attention scale of ${attentionScale} (it computes with ${scale})`,
    ],
    [output === 'tied' && !config.tieWordEmbeddings, 'an output matrix beside the embedding'],
    [(bias.output || bias.mlp) && !architecture.biases, 'biases beside those of query, key and value'],
    [(scoreSoftCap !== null) !== (name === 'gemma2'), `a soft cap of ${scoreSoftCap} on attention`],
    [name === 'gemma2' && logitSoftCap === null, 'logits without a soft cap'],
    ...expertDifferences(architecture, config),
    ...ropeDifferences(architecture, config),
    ...windowDifferences(architecture, config),
  ]
}

function expertDifferences(
  architecture: Architecture,
  { experts, layers }: DecoderConfig,
): [boolean, string][] {
  if (!experts) return [[architecture.experts === true, 'a model without experts']]
  return [
    [architecture.experts !== true, 'routed experts'],
    [experts.layers.size !== layers, 'experts in some layers only'],
    [!experts.normalizeWeights, "experts' weights that are not scaled to a sum of 1 (norm_topk_prob)"],
  ]
}

function ropeDifferences(
  architecture: Architecture,
  { layerAttention, headDim }: DecoderConfig,
): [boolean, string][] {
  const { name } = architecture
  const [full, sliding] = [layerAttention.filter(isFull), layerAttention.filter((layer) => !isFull(layer))]
  const ropes = layerAttention.map(({ rope }) => rope)
  const partial = ropes.find(({ rotaryDim }) => rotaryDim !== headDim)
  const has = (kind: RopeScaling['kind']) => ropes.some(({ scaling }) => scaling?.kind === kind)
  const llama3 = has('llama3')
  const distinct = (layers: typeof layerAttention) =>
    new Set(layers.map(({ rope }) => JSON.stringify(rope))).size
  // Layers with a window take the scaling of the others in gemma2, and none in gemma3.
  const slidingScaling = name === 'gemma3' ? null : (full[0] ?? sliding[0]!).rope.scaling
  const isOther = (scaling: RopeScaling | null) => JSON.stringify(scaling) !== JSON.stringify(slidingScaling)
  return [
    [
      !architecture.partialRotary && partial !== undefined,
      `${partial?.rotaryDim} of ${headDim} dimensions that rotate`,
    ],
    [name !== 'llama' && llama3, "Llama 3's rope scaling"],
    [name !== 'phi3' && has('longrope'), 'longrope'],
    [architecture.windowPeriod !== undefined && has('yarn'), 'YaRN beside layers with a window'],
    [ropes.some(({ scaling }) => scaling?.kind === 'yarn' && !scaling.truncate), 'YaRN without truncation'],
    [distinct(full) > 1 || distinct(sliding) > 1, 'more than one rope'],
    [sliding.some(({ rope }) => isOther(rope.scaling)), 'another rope scaling in layers with a window'],
    [
      architecture.windowPeriod === undefined && distinct([...layerAttention]) > 1,
      'another rope in layers with a window',
    ],
  ]
}

function windowDifferences(
  { windowPeriod }: Architecture,
  { layerAttention }: DecoderConfig,
): [boolean, string][] {
  const windows = new Set(layerAttention.flatMap(({ window }) => window ?? []))
  return [[windowPeriod !== undefined && windows.size > 1, `windows of ${[...windows].join(' and ')} tokens`]]
}

const isFull = ({ window }: DecoderConfig['layerAttention'][number]) => window === null
