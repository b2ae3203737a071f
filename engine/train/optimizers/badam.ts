import { EngineError } from '../../errors.ts'
import { epochOrder } from '../../random.ts'
import type { Parameter } from '../step.ts'
import { type AdamWOptions, createAdamW } from './adamw.ts'
import type { Optimizer } from './optimizer.ts'

export interface BAdamOptions extends AdamWOptions {
  switchMode: 'ascending' | 'descending' | 'random' | 'fixed'
  /** Updates of one layer before the next one's turn. */
  switchInterval: number
  /** The layer to begin with; the first, or the last one for 'descending', when left out. */
  startBlock?: number | undefined
  seed: number
}

/**
 * BAdam, block coordinate descent (Luo et al. 2024, arXiv:2404.02827), by layers: one layer at a time is updated by
 * AdamW, whose moments start from zero when its turn comes, so that only one layer's moments exist. What lies outside of
 * the layers (embeddings, head, final norm) stays as it is.
 */
export function createBAdam(parameters: readonly Parameter[], options: BAdamOptions): Optimizer {
  const { switchInterval, switchMode } = options
  const blocks = blocksOf(parameters)
  const order = blockOrder(blocks.length, options)
  let step = 0
  let active: { turn: number; indices: readonly number[]; optimizer: Optimizer } | undefined

  const activate = (turn: number) => {
    if (active?.turn === turn) return active
    const indices = blocks[order(turn)]!
    const optimizer = createAdamW(
      indices.map((index) => parameters[index]!),
      options,
    )
    active = { turn, indices, optimizer }
    return active
  }
  const turnOf = (update: number) => (switchMode === 'fixed' ? 0 : Math.floor((update - 1) / switchInterval))
  return {
    update(gradients, learningRate) {
      step++
      const { indices, optimizer } = activate(turnOf(step))
      optimizer.update(
        indices.map((index) => gradients[index]!),
        learningRate,
      )
    },
    state: () => ({ step, tensors: active?.optimizer.state().tensors ?? new Map() }),
    restore(state) {
      step = state.step
      active = undefined
      if (step === 0) return
      const turn = turnOf(step)
      activate(turn).optimizer.restore({ step: step - turn * switchInterval, tensors: state.tensors })
    },
  }
}

/** Indices of each layer's parameters, by layer. */
export function blocksOf(parameters: readonly Pick<Parameter, 'name'>[]): number[][] {
  const blocks = new Map<number, number[]>()
  for (const [index, { name }] of parameters.entries()) {
    const layer = /\.(\d+)\./.exec(name)?.[1]
    if (layer === undefined) continue
    const block = blocks.get(Number(layer)) ?? []
    blocks.set(Number(layer), [...block, index])
  }
  return [...blocks].sort(([a], [b]) => a - b).map(([, indices]) => indices)
}

/** @throws EngineError `invalid` for a layer that is not trained. */
export function requireStartBlock(startBlock: number | undefined, count: number): void {
  if (startBlock === undefined || (startBlock >= 0 && startBlock < count)) return
  const message = `badam_start_block ${startBlock} is no layer of this model; it has 0 to ${count - 1}`
  throw new EngineError('invalid', 'badam_start_block', message, { param: 'badam_start_block' })
}

/** The block of each turn. */
function blockOrder(count: number, { switchMode, startBlock, seed }: BAdamOptions): (turn: number) => number {
  requireStartBlock(startBlock, count)
  const first = startBlock ?? (switchMode === 'descending' ? count - 1 : 0)
  if (switchMode === 'fixed') return () => first
  if (switchMode === 'random') {
    return (turn) => epochOrder(seed, Math.floor(turn / count), count)[turn % count]!
  }
  const direction = switchMode === 'descending' ? count - 1 : 1
  return (turn) => (first + turn * direction) % count
}
