import { setImmediate } from 'node:timers/promises'
import { type DivergenceSums, RunningDivergence } from '../metrics/divergence.ts'
import type { OpenModel } from '../models/index.ts'
import { HeadGraph } from '../quant/head-graph.ts'
import { embed, LayerGraphs } from '../quant/layer-graph.ts'
import type { WeightSource } from '../quant/weight-source.ts'
import { checkCancelled } from '../weights/atomic-folder.ts'
import { type MatrixError, matrixErrors, relativeError, scaledInputs } from './matrix-errors.ts'

export interface CompareOptions {
  model: OpenModel
  /** The exported weights, as a reader of the export gets them. */
  exported: WeightSource
  /** Token windows of equal length. */
  windows: readonly Int32Array[]
  /** Position in each window from which on predictions count; 0 by default. */
  from?: number
  /** Whether matrices hold scales of their inputs (AWQ), which are taken out before they are compared. */
  hasScaledInputs?: boolean
  threads?: number
  onProgress?: (fraction: number) => void
  signal?: AbortSignal
}

/** What an export lost, measured on a text. */
export interface Comparison {
  /** Predicted tokens. */
  tokens: number
  perplexity: { before: number; after: number }
  /** Mean Kullback-Leibler divergence of the next-token distributions, in nats: KL(before ‖ after). */
  meanKld: number
  /** Part of the positions with the same most likely token. */
  sameTop: number
  /** |W − Ŵ| / |W| of each matrix that changed, the worst first. */
  matrices: MatrixError[]
  /** |h − ĥ| / |h| of the hidden states after each layer. */
  layers: { layer: number; error: number }[]
}

/** Tokens of the vocabulary whose logits are in memory at a time. */
const VOCABULARY_PART = 8192

/**
 * Runs checkpoint and export side by side over the same windows, one layer at a time, so that memory holds two layers
 * whatever the model's size.
 *
 * @throws EngineError `cancelled`.
 */
export async function compareModels(options: CompareOptions): Promise<Comparison> {
  const { model, exported, windows, hasScaledInputs, threads, onProgress, signal } = options
  const { weights, config } = model
  const length = windows[0]!.length
  const graphs = new LayerGraphs(model, length, threads)
  const before = windows.map((window) => embed(model, weights, window))
  const after = windows.map((window) => embed(model, exported, window))
  const matrices: Comparison['matrices'] = []
  const layers: Comparison['layers'] = []
  try {
    for (let layer = 0; layer < config.layers; layer++) {
      const original = await graphs.load(layer, weights)
      const changed = await graphs.load(layer, exported)
      const { groups } = await graphs.describe(layer)
      const factors = hasScaledInputs ? scaledInputs(groups, config.normOffset, original, changed) : undefined
      matrices.push(...matrixErrors(original, changed, factors))
      for (let i = 0; i < windows.length; i++) {
        checkCancelled(signal)
        before[i] = await graphs.forward(layer, original, before[i]!, 1)
        after[i] = await graphs.forward(layer, changed, after[i]!, 1)
        await setImmediate() // lets a cancellation in
      }
      const drift = before.map((states, i) => relativeError(states, after[i]!))
      layers.push({ layer, error: drift.reduce((sum, value) => sum + value, 0) / drift.length })
      onProgress?.((layer + 1) / (config.layers + 1))
    }
  } finally {
    await graphs.release()
  }
  const sums = await compareHeads(options, before, after)
  onProgress?.(1)
  return {
    tokens: sums.positions,
    perplexity: {
      before: Math.exp(sums.referenceLoss / sums.positions),
      after: Math.exp(sums.otherLoss / sums.positions),
    },
    meanKld: sums.divergence / sums.positions,
    sameTop: sums.sameTop / sums.positions,
    matrices: matrices.sort((a, b) => b.error - a.error),
    layers,
  }
}

/** Logits of a part of the vocabulary at a time, for all windows, so that no whole table is ever in memory. */
async function compareHeads(
  { model, exported, windows, from = 0, threads, signal }: CompareOptions,
  before: readonly Float32Array[],
  after: readonly Float32Array[],
): Promise<DivergenceSums> {
  const { hiddenSize, vocabSize } = model.config
  const end = windows[0]!.length - 1
  const divergence = new RunningDivergence(windows.flatMap((window) => [...window.subarray(from + 1)]))
  const head = await HeadGraph.create(model, VOCABULARY_PART, threads)
  try {
    for (let first = 0; first < vocabSize; first += VOCABULARY_PART) {
      const original = head.load(model.weights, first)
      const changed = head.load(exported, first)
      for (let index = 0; index < windows.length; index++) {
        checkCancelled(signal)
        const rows = (states: Float32Array) => states.subarray(from * hiddenSize, end * hiddenSize)
        const reference = await head.logits(original, rows(before[index]!))
        const other = await head.logits(changed, rows(after[index]!))
        const count = Math.min(VOCABULARY_PART, vocabSize - first)
        const place = { row: index * (end - from), token: first, count, stride: VOCABULARY_PART }
        divergence.add(reference, other, place)
        await setImmediate() // lets a cancellation in
      }
    }
  } finally {
    await head.release()
  }
  return divergence.sums()
}
