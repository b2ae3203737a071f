import { EngineError } from '../errors.ts'
import type { DecoderConfig } from '../nn/config.ts'

/** What llama.cpp's code for an architecture takes for granted (its src/models/*.cpp, conversion/*.py). */
export interface Architecture {
  readonly name: string
  /** `architectures` of config.json where a file of this kind is imported. */
  readonly className: string
  /** Rows of query and key have their rotary halves interleaved. */
  readonly interleaved?: true
  /** Layers with a window come in periods of this length, the last of each without one; without it there are no windows. */
  readonly windowPeriod?: number
  /** Heads may rotate a part of their dimensions. */
  readonly partialRotary?: true
  /** The heads together are as wide as the model. */
  readonly squareHeads?: true
  /** Every layer has routed experts whose weights sum to 1. */
  readonly experts?: true
  /** The output matrix is a tensor of its own ('own'), or always the embedding ('tied'). */
  readonly output?: 'own' | 'tied'
  /** Projections beside query, key and value may have biases. */
  readonly biases?: true
  readonly gelu?: true
  /** Number of layers of the one size whose queries are scaled by the width of a head of the whole model. */
  readonly wideScaleLayers?: number
}

const LLAMA: Architecture = { name: 'llama', className: 'LlamaForCausalLM', interleaved: true, biases: true }

/** By model_type. Where several share a name, a file is imported as the first that has experts as the file does. */
const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: LLAMA,
  Yi: LLAMA,
  mistral: LLAMA,
  mixtral: { ...LLAMA, className: 'MixtralForCausalLM', experts: true },
  qwen2: { name: 'qwen2', className: 'Qwen2ForCausalLM', squareHeads: true },
  qwen3: { name: 'qwen3', className: 'Qwen3ForCausalLM' },
  qwen3_moe: { name: 'qwen3moe', className: 'Qwen3MoeForCausalLM', experts: true },
  gemma: { name: 'gemma', className: 'GemmaForCausalLM', gelu: true, output: 'tied' },
  gemma2: {
    name: 'gemma2',
    className: 'Gemma2ForCausalLM',
    gelu: true,
    output: 'tied',
    windowPeriod: 2,
    wideScaleLayers: 46,
  },
  gemma3_text: {
    name: 'gemma3',
    className: 'Gemma3ForCausalLM',
    gelu: true,
    windowPeriod: 6,
    wideScaleLayers: 62,
  },
  phi3: { name: 'phi3', className: 'Phi3ForCausalLM', partialRotary: true, squareHeads: true },
  olmo2: { name: 'olmo2', className: 'Olmo2ForCausalLM', squareHeads: true, output: 'own' },
  glm: { name: 'chatglm', className: 'GlmForCausalLM', partialRotary: true, squareHeads: true },
  glm4: { name: 'glm4', className: 'Glm4ForCausalLM', partialRotary: true },
}

/** llama.cpp's name for a model's family. @throws EngineError `unsupported` listing the families that have one. */
export function ggufArchitectureOf({ modelType }: DecoderConfig): Architecture {
  const architecture = Object.hasOwn(ARCHITECTURES, modelType) ? ARCHITECTURES[modelType] : undefined
  if (architecture) return architecture
  const known = Object.keys(ARCHITECTURES).join(', ')
  throw new EngineError(
    'unsupported',
    'gguf_unsupported',
    `model_type '${modelType}' is not written as GGUF; ${known} are`,
    { param: 'format' },
  )
}

/** The family that a file of an architecture is imported as, undefined for architectures that are not read. */
export function importedFamily(
  name: string,
  hasExperts: boolean,
): { modelType: string; architecture: Architecture } | undefined {
  const found = Object.entries(ARCHITECTURES).find(
    ([, architecture]) => architecture.name === name && (architecture.experts ?? false) === hasExperts,
  )
  return found && { modelType: found[0], architecture: found[1] }
}

/** llama.cpp's names of all architectures that are read and written. */
export const GGUF_ARCHITECTURES: readonly string[] = [
  ...new Set(Object.values(ARCHITECTURES).map(({ name }) => name)),
]

/**
 * The width of a head by which an architecture scales its queries: gemma2.cpp and gemma3.cpp know their largest model by
 * its number of layers.
 */
export function queryScaleWidth(
  { wideScaleLayers }: Architecture,
  { layers, hiddenSize, heads, headDim }: Pick<DecoderConfig, 'layers' | 'hiddenSize' | 'heads' | 'headDim'>,
): number {
  return layers === wideScaleLayers ? hiddenSize / heads : headDim
}

/** Whether a layer has a window in an architecture that has some. */
export function slidesByPeriod(layer: number, period: number): boolean {
  return layer % period !== period - 1
}
