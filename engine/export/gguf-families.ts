import { EngineError } from '../errors.ts'
import type { DecoderConfig } from '../models/config.ts'

/** What llama.cpp's code for an architecture takes for granted (its src/models/*.cpp, conversion/*.py). */
export interface Architecture {
  readonly name: string
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

const LLAMA: Architecture = { name: 'llama', interleaved: true, biases: true }

const ARCHITECTURES: Readonly<Record<string, Architecture>> = {
  llama: LLAMA,
  Yi: LLAMA,
  mistral: LLAMA,
  mixtral: { ...LLAMA, experts: true },
  qwen2: { name: 'qwen2', squareHeads: true },
  qwen3: { name: 'qwen3' },
  qwen3_moe: { name: 'qwen3moe', experts: true },
  gemma: { name: 'gemma', gelu: true, output: 'tied' },
  gemma2: { name: 'gemma2', gelu: true, output: 'tied', windowPeriod: 2, wideScaleLayers: 46 },
  gemma3_text: { name: 'gemma3', gelu: true, windowPeriod: 6, wideScaleLayers: 62 },
  phi3: { name: 'phi3', partialRotary: true, squareHeads: true },
  olmo2: { name: 'olmo2', squareHeads: true, output: 'own' },
  glm: { name: 'chatglm', partialRotary: true, squareHeads: true },
  glm4: { name: 'glm4', partialRotary: true },
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
