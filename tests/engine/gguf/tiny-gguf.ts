import { gaussian } from '../weights/tiny-model.ts'
import type { TensorBytes, Value } from './gguf-bytes.ts'

const HIDDEN = 8
const HEADS = 2
export const VOCABULARY = ['<unk>', '<s>', '</s>', 'a', 'b', 'ab', 'Ġ']

/** Metadata of a model too small to compute anything, with a byte-level BPE of a few tokens. */
export function tinyMetadata(architecture = 'llama', changes: Record<string, Value | undefined> = {}) {
  const metadata: Record<string, Value | undefined> = {
    'general.architecture': { text: architecture },
    [`${architecture}.block_count`]: { u32: 1 },
    [`${architecture}.context_length`]: { u32: 64 },
    [`${architecture}.embedding_length`]: { u32: HIDDEN },
    [`${architecture}.feed_forward_length`]: { u32: 6 },
    [`${architecture}.attention.head_count`]: { u32: HEADS },
    [`${architecture}.attention.head_count_kv`]: { u32: 1 },
    [`${architecture}.attention.layer_norm_rms_epsilon`]: { f32: 1e-5 },
    [`${architecture}.rope.freq_base`]: { f32: 10_000 },
    'tokenizer.ggml.model': { text: 'gpt2' },
    'tokenizer.ggml.pre': { text: 'gpt-2' },
    'tokenizer.ggml.tokens': { texts: VOCABULARY },
    'tokenizer.ggml.token_type': { i32s: [2, 3, 3, 1, 1, 1, 1] },
    'tokenizer.ggml.merges': { texts: ['a b'] },
    'tokenizer.ggml.bos_token_id': { u32: 1 },
    'tokenizer.ggml.eos_token_id': { u32: 2 },
    'tokenizer.chat_template': { text: '{{ messages[0].content }}' },
    ...changes,
  }
  return Object.fromEntries(Object.entries(metadata).filter(([, value]) => value !== undefined)) as Record<
    string,
    Value
  >
}

/** Its tensors, float32; `biases` on query, key and value, `headNorms` as qwen3 has them. */
export function tinyTensors(options: { biases?: boolean; headNorms?: boolean } = {}): TensorBytes[] {
  const shapes: [string, number[]][] = [
    ['token_embd.weight', [VOCABULARY.length, HIDDEN]],
    ['blk.0.attn_norm.weight', [HIDDEN]],
    ['blk.0.attn_q.weight', [HIDDEN, HIDDEN]],
    ['blk.0.attn_k.weight', [HIDDEN / HEADS, HIDDEN]],
    ['blk.0.attn_v.weight', [HIDDEN / HEADS, HIDDEN]],
    ['blk.0.attn_output.weight', [HIDDEN, HIDDEN]],
    ['blk.0.ffn_norm.weight', [HIDDEN]],
    ['blk.0.ffn_gate.weight', [6, HIDDEN]],
    ['blk.0.ffn_up.weight', [6, HIDDEN]],
    ['blk.0.ffn_down.weight', [HIDDEN, 6]],
    ['output_norm.weight', [HIDDEN]],
  ]
  if (options.biases) {
    shapes.push(['blk.0.attn_q.bias', [HIDDEN]], ['blk.0.attn_k.bias', [4]], ['blk.0.attn_v.bias', [4]])
  }
  if (options.headNorms) shapes.push(['blk.0.attn_q_norm.weight', [4]], ['blk.0.attn_k_norm.weight', [4]])
  return shapes.map(([name, shape], seed) => {
    const values = gaussian(
      shape.reduce((product, dim) => product * dim, 1),
      seed + 1,
    )
    return { name, shape, bytes: new Uint8Array(values.buffer) }
  })
}
