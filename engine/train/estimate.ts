import { EngineError } from '../errors.ts'
import type { DecoderConfig } from '../nn/config.ts'
import { CPU_TRAITS, type DeviceTraits } from '../onnx/device.ts'
import { gigabytes } from '../units.ts'
import type { TrainConfig } from './config.ts'
import { comparesWithStart } from './objectives/compares-with-start.ts'

/** What the estimate needs to know of a model. */
export interface ModelSize
  extends Pick<
    DecoderConfig,
    'vocabSize' | 'hiddenSize' | 'intermediateSize' | 'layers' | 'heads' | 'keyValueHeads' | 'headDim'
  > {
  /** Weights of all tensors; tied ones count once. */
  parameters: number
  /** Bytes of all tensors on disk. */
  weightBytes: number
  trainableParameters: number
  /** Tokens of the model's context. */
  maxPositions?: number
  /** Bytes of the tensors as the session maps them, where linear layers are packed; weightBytes otherwise. */
  packedBytes?: number
  /** Whether most tensors are stored as bfloat16. */
  isBfloat16?: boolean
}

/** The largest batch of a run. */
export interface BatchSize {
  rows: number
  /** Tokens of a row, with padding. */
  length: number
  /** Trained tokens in all rows together. */
  trained: number
}

/** The parts of a training process's memory at its peak, in bytes. */
export interface MemoryEstimate {
  /** Node.js and the runtime's code. */
  runtime: number
  /** Frozen weights as they lie in their files. */
  mappedWeights: number
  /**
   * Trainable weights, their gradients (in the runtime and copied out), what the optimizer keeps, and the weights that the
   * run began with where the stage compares with them.
   */
  trainable: number
  /** What the layers keep of each token for the backward pass. */
  activations: number
  /** Attention probabilities that they keep, rows × heads × length² each. */
  attention: number
  /** What is alive for a while only: the head with its logits, or one layer with its gradients, whichever is more. */
  working: number
  /** The sum of the others. */
  total: number
}

/** What of a configuration changes the memory of a step. */
type Estimated = Pick<TrainConfig, 'gradient_accumulation_steps' | 'stage'> &
  Partial<
    Pick<
      TrainConfig,
      | 'pref_loss'
      | 'fp16'
      | 'bf16'
      | 'pure_bf16'
      | 'use_dora'
      | 'optim'
      | 'use_galore'
      | 'galore_rank'
      | 'use_badam'
      | 'use_muon'
    >
  >

/** Where a run computes, and whether it evaluates. */
export interface RunPlace {
  device?: DeviceTraits
  /** Whether a part of its data is held out and evaluated. */
  evaluates?: boolean
}

const FLOAT = 4
/** Sums of residuals in a layer; fp16 leaves them float32. */
const RESIDUALS = 2
/** Node.js, the runtime's code, and what it notes of each layer's nodes; found by bench:memory, as the counts below. */
const RUNTIME_BYTES = 160e6
const RUNTIME_BYTES_A_LAYER = 3e6
/** Logits, log-probabilities and their gradient. */
const LOGIT_COPIES = 3
/** Small beside the rest, and still some hundred rows: products over fewer are slower. */
const LOGIT_BYTES = 64e6
const MOST_CHUNKS = 64
/** What part of freed memory the next user cannot use. */
const UNFIT = 0.35
/** A layer's results once more as gradients, a part of them at a time. */
const LAYER_COPIES = 1.5
/** Scores, masked scores, probabilities and two gradients. */
const SCORE_COPIES = 4

/**
 * Estimates the peak memory of a training step without running it. Each layer makes, for each token, in float32: two
 * residuals and two norms (4 hidden); query, key and value as projected, rotated and sorted by head, and the context
 * before and after sorting (5 query widths, 5 key widths); gate, activation, up and their product (4 intermediate). All
 * of it is kept for the backward pass, with fp16 all but the residuals in half of the bytes; with checkpointing only the
 * layer's input is (1 hidden), and one layer at a time is made again.
 */
export function estimateMemory(
  stored: ModelSize,
  config: Estimated,
  batch: BatchSize,
  checkpointing: boolean,
  { device = CPU_TRAITS, evaluates = false }: RunPlace = {},
): MemoryEstimate {
  const model = device.kind === 'webgpu' ? heldInFloat32(stored) : stored
  const frozen = isFrozen(model) ? 1 : 0
  const widened = isWidened(model) && !multipliesStored(config, device, model) ? frozen : 0
  const accumulated = config.gradient_accumulation_steps > 1 ? 1 : 0
  const copies = 3 + accumulated + optimizerCopies(model, config) + (comparesWithStart(config) ? 1 : 0)
  const tokens = batch.rows * batch.length
  const layer = { width: layerWidth(model), scores: model.heads * batch.rows * batch.length ** 2 }
  const halved = keepsHalf(config, device, checkpointing) ? 0.5 : 1
  const residuals = RESIDUALS * model.hiddenSize
  const kept = checkpointing
    ? { width: model.layers * model.hiddenSize, scores: 0 }
    : {
        width: model.layers * (residuals + halved * (layer.width - residuals)),
        scores: model.layers * layer.scores * halved,
      }
  const parts = {
    runtime: RUNTIME_BYTES + model.layers * RUNTIME_BYTES_A_LAYER,
    mappedWeights:
      (model.packedBytes ?? model.weightBytes) * frozen * copiesOfBase(config, device, evaluates),
    trainable: FLOAT * model.trainableParameters * copies,
    activations: FLOAT * tokens * kept.width,
    attention: FLOAT * kept.scores,
    working: oneAfterTheOther(
      headBytes(model, config, batch, widened),
      // the norms of DoRA's rows are of the widened weight in any case
      layerBytes(model, tokens, layer, config.use_dora && isWidened(model) ? frozen : widened, checkpointing),
    ),
  }
  const whole = Object.fromEntries(Object.entries(parts).map(([name, bytes]) => [name, Math.round(bytes)]))
  const total = Object.values(whole).reduce((sum, bytes) => sum + bytes, 0)
  return { ...whole, total } as MemoryEstimate
}

/**
 * Floats that the optimizer keeps for each trained one: two moments for AdamW, of one block at a time for BAdam; one for
 * Lion, Muon and SGD with momentum; a row and a column for Adafactor, which is next to nothing. GaLore has the moments and
 * the basis of its rank, and AdamW's where it doesn't project: embedding and head.
 */
function optimizerCopies(model: ModelSize, config: Estimated): number {
  const embedding = Math.min(1, (model.vocabSize * model.hiddenSize) / model.parameters)
  if (config.use_muon) return 1
  if (config.use_badam) return 2 * Math.max(embedding, (1 - embedding) / model.layers)
  if (config.use_galore) {
    const projected = 3 * Math.min(1, (config.galore_rank ?? model.hiddenSize) / model.hiddenSize)
    return 2 * embedding + projected * (1 - embedding)
  }
  if (config.optim === 'adafactor') return 0
  return config.optim === 'sgd' || config.optim === 'lion_32bit' ? 1 : 2
}

/** The allocator hands what the head has left on to the layers, but not every gap fits. */
function oneAfterTheOther(head: number, layer: number): number {
  return Math.max(head, layer) + UNFIT * Math.min(head, layer)
}

/** Floats that a layer makes of a token. */
function layerWidth({ heads, keyValueHeads, headDim, hiddenSize, intermediateSize }: ModelSize): number {
  return 4 * hiddenSize + 5 * heads * headDim + 5 * keyValueHeads * headDim + 4 * intermediateSize
}

/** The head while it works: its weight, where it is `widened` (1, or 0), and the logits of one part of the loss. */
function headBytes(
  model: ModelSize,
  config: Pick<TrainConfig, 'stage'>,
  batch: BatchSize,
  widened: number,
): number {
  const rows = batch.trained / lossChunks(model, config, batch)
  return FLOAT * model.vocabSize * (widened * model.hiddenSize + LOGIT_COPIES * rows)
}

/**
 * Parts into which the loss of a batch is cut, so that the logits of each stay below LOGIT_BYTES. A preference's gradient
 * needs the sums over all of its tokens first, so there cutting would free nothing.
 */
export function lossChunks(
  { vocabSize }: Pick<ModelSize, 'vocabSize'>,
  { stage }: Pick<TrainConfig, 'stage'>,
  { trained }: Pick<BatchSize, 'trained'>,
): number {
  if (stage !== 'sft' && stage !== 'pt') return 1
  return Math.min(MOST_CHUNKS, Math.max(1, Math.ceil((FLOAT * trained * vocabSize) / LOGIT_BYTES)))
}

/** One layer while it works: its weights, where `widened`, its gradients, and with checkpointing what it makes again. */
function layerBytes(
  model: ModelSize,
  tokens: number,
  { width, scores }: { width: number; scores: number },
  widened: number,
  checkpointing: boolean,
): number {
  const { hiddenSize, intermediateSize, heads, keyValueHeads, headDim } = model
  const attention = 2 * hiddenSize * (heads + keyValueHeads) * headDim
  // with checkpointing a layer's weights serve both passes, otherwise each is widened where it is used
  const used = checkpointing ? 3 * hiddenSize * intermediateSize + attention : hiddenSize * intermediateSize
  const copies = (checkpointing ? 1 : 0) + LAYER_COPIES
  const scoreCopies = (checkpointing ? 1 : 0) + SCORE_COPIES
  return FLOAT * (widened * used + tokens * width * copies + scores * scoreCopies)
}

/**
 * Passes without gradients are a session of their own, which on another device than the CPU holds the base once more; on
 * the CPU both map the same file.
 */
function copiesOfBase(config: Estimated, { kind }: DeviceTraits, evaluates: boolean): number {
  return kind !== 'cpu' && (evaluates || comparesWithStart(config)) ? 2 : 1
}

/** Whether a step keeps the layers' results as float16. What is computed again is not kept. */
export function keepsHalf(
  { fp16 = false }: Partial<Pick<TrainConfig, 'fp16'>>,
  { hasHalf }: DeviceTraits,
  checkpointing: boolean,
): boolean {
  return fp16 && hasHalf && !checkpointing
}

/** Whether a step multiplies frozen weights as they are stored, in bfloat16. Packed ones are widened. */
export function multipliesStored(
  { bf16 = false, pure_bf16 = false }: Partial<Pick<TrainConfig, 'bf16' | 'pure_bf16'>>,
  { multipliesBfloat16 = false }: DeviceTraits,
  model: ModelSize,
): boolean {
  const { isBfloat16 = false, packedBytes } = model
  return (
    (bf16 || pure_bf16) && multipliesBfloat16 && isBfloat16 && packedBytes === undefined && isFrozen(model)
  )
}

/** An adapter stands beside the weights, which all stay frozen; full training freezes none. */
function isFrozen({ trainableParameters, parameters }: ModelSize): boolean {
  return trainableParameters < parameters
}

/** WebGPU has no bf16: what is not packed is widened when it is loaded, and stays so. */
function heldInFloat32(model: ModelSize): ModelSize {
  return model.packedBytes === undefined ? { ...model, weightBytes: FLOAT * model.parameters } : model
}

/** Whether frozen weights are computed to float32 where they are used. */
function isWidened(model: ModelSize): boolean {
  return model.packedBytes !== undefined || model.weightBytes < FLOAT * model.parameters
}

/**
 * Decides how a step saves memory. Layers are computed again for the backward pass as the configuration says, or where
 * keeping their results would need more than `availableBytes`.
 */
export function chooseSavings(
  model: ModelSize,
  config: Estimated & Pick<TrainConfig, 'gradient_checkpointing'>,
  batch: BatchSize,
  { availableBytes = Number.POSITIVE_INFINITY, ...place }: RunPlace & { availableBytes?: number } = {},
): { checkpointing: boolean; lossChunks: number; memory: MemoryEstimate } {
  const keeping = estimateMemory(model, config, batch, false, place)
  const checkpointing = config.gradient_checkpointing ?? keeping.total > availableBytes
  return {
    checkpointing,
    lossChunks: lossChunks(model, config, batch),
    memory: checkpointing ? estimateMemory(model, config, batch, true, place) : keeping,
  }
}

/**
 * Refuses a run that would not fit into `availableBytes` of memory.
 *
 * @throws EngineError `too_large` with both numbers and what would help most.
 */
export function checkFits(estimate: MemoryEstimate, availableBytes: number): void {
  if (estimate.total <= availableBytes) return
  const growing = estimate.activations + estimate.attention + estimate.working
  const help =
    growing > estimate.total / 2
      ? 'Lower per_device_train_batch_size (and raise gradient_accumulation_steps) or cutoff_len.'
      : 'Choose a smaller model or finetuning_type lora, or free memory.'
  throw new EngineError(
    'too_large',
    'out_of_memory',
    `This run needs about ${gigabytes(estimate.total)} (${estimate.total} bytes) of memory, but only ` +
      `${gigabytes(availableBytes)} (${availableBytes} bytes) are available. ${help}`,
    { param: 'per_device_train_batch_size' },
  )
}
