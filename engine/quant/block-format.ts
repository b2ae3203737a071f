/** How a run of weights is packed into bytes; the layouts are those of ggml (ggml-common.h of llama.cpp). */
export interface BlockFormat {
  /** ggml's number of the type, as GGUF's tensor table has it. */
  readonly ggmlType: number
  /** Weights in one block; a row's length is a multiple of it. */
  readonly blockSize: number
  /** Bytes of one packed block. */
  readonly blockBytes: number
  /** Packs `values` (whole blocks) into `target` (`values.length / blockSize · blockBytes` bytes). */
  quantize(values: Float32Array, target: Uint8Array): void
}
