import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'

/** Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783), with Llama 3's rope scaling, and models of their shape. */
export const llama: Family = {
  modelType: 'llama',
  parseConfig(raw) {
    const config = decoderConfig(raw)
    return { ...config, bias: { ...config.bias, mlp: raw.mlp_bias === true } }
  },
  build: decoder,
}

/** Yi's first release (arXiv:2403.04652): Llama's layers with other names for the norms; later ones say 'llama'. */
export const yi: Family = {
  modelType: 'Yi',
  parseConfig: (raw) => ({
    ...decoderConfig(raw, { rope: { theta: 5_000_000 } }),
    names: { ...llamaNames, norms: { attentionInput: 'ln1', mlpInput: 'ln2' } },
  }),
  build: decoder,
}
