import type { Metrics } from './objectives/metrics.ts'

/** A right-padded batch of token sequences, ready to feed. Padding needs no attention mask: causal rows never see it. */
export interface TokenBatch {
  rows: number
  length: number
  /** [rows * length], padded with the pad id. */
  inputIds: BigInt64Array
  /** [n] flat indices into rows * length of the tokens that predict a trained label (label position - 1). */
  trainedPositions: BigInt64Array
  /** [n] the token id to predict at each of them. */
  labels: BigInt64Array
  /** Tokens that are not padding, for throughput. */
  tokens: number
  /** Lengths of the examples that each row holds, where they are packed. */
  packed?: readonly (readonly number[])[]
}

/** A trainable tensor. The optimizer writes `data` in place; the next step feeds it without a copy. */
export interface Parameter {
  /** PEFT's tensor name for LoRA ('base_model.model.….lora_A.weight'), the checkpoint's own for full training. */
  name: string
  shape: readonly number[]
  data: Float32Array
}

/** What a batch came to. */
export interface Evaluation {
  loss: number
  /** What the stage logs beside the loss. */
  metrics?: Metrics
}

/** One compiled training step over a fixed set of parameters; not reentrant. */
export interface TrainStep {
  readonly parameters: readonly Parameter[]
  /**
   * loss = weight · Σ over what the batch's objective counts (trained tokens, pairs), and its gradient by each parameter,
   * in the order of `parameters`. Pass 1 / (their number in the whole optimizer step) to get the mean over accumulated
   * batches.
   */
  run(
    batch: TokenBatch,
    weight: number,
    dropoutSeed?: number,
  ): Promise<Evaluation & { gradients: Float32Array[] }>
  /** The same without gradients or dropout. */
  evaluate(batch: TokenBatch, weight: number): Promise<Evaluation>
  release(): Promise<void>
}
