import { decoder } from '../nn/decoder-layer.ts'
import { decoderConfig } from './decoder-config.ts'
import type { Family } from './family.ts'
import { llamaNames } from './names.ts'
import { type RawConfig, unsupportedField } from './raw-config.ts'

/**
 * Baichuan2-7B and Baichuan-7B (arXiv:2309.10305): the llama shape with one module for query, key and value; Baichuan 2
 * scales the rows of its output head to length 1. The 13B models have ALiBi instead of rope; theirs is the config
 * without max_position_embeddings.
 */
export const baichuan: Family = {
  modelType: 'baichuan',
  parseConfig(raw) {
    if (raw.max_position_embeddings === undefined) {
      throw unsupportedField(
        raw,
        'max_position_embeddings',
        null,
        'the 7B models, with rope, are; 13B, with ALiBi, are not',
      )
    }
    const config = decoderConfig(raw)
    return {
      ...config,
      normalizeHead: !isFirst(raw),
      names: { ...llamaNames, queryKeyValue: 'W_pack' },
    }
  },
  build: decoder,
}

/** Baichuan-7B, whose head is a plain one, writes its architecture BaiChuan and has a vocabulary of 64,000. */
function isFirst({ architectures, vocab_size }: RawConfig): boolean {
  return (
    vocab_size === 64_000 || (Array.isArray(architectures) && architectures.includes('BaiChuanForCausalLM'))
  )
}
