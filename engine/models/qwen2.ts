import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import type { SlidingRule } from './layer-windows.ts'
import type { RawConfig } from './raw-config.ts'

/** Qwen2 and Qwen2.5 (arXiv:2407.10671): the llama shape with biases on query, key and value. */
export const qwen2: Family = {
  modelType: 'qwen2',
  parseConfig: (raw) => ({
    ...decoderConfig(raw, { sliding: qwenSliding(raw) }),
    bias: { queryKeyValue: true, output: false, mlp: false },
  }),
  build: decoder,
}

/** Windows only where use_sliding_window says so, and then from layer max_window_layers on. */
export function qwenSliding(raw: RawConfig): SlidingRule | undefined {
  if (raw.use_sliding_window !== true) return undefined
  const first = typeof raw.max_window_layers === 'number' ? raw.max_window_layers : 28
  return { window: 4096, slides: (layer) => layer >= first, byLayerTypes: true }
}
