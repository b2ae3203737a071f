import { EngineError } from '../../errors.ts'
import type { Parameter } from '../step.ts'

/** What an optimizer must keep to go on exactly where it was: names are its own, one array per kind and parameter. */
export interface OptimizerState {
  /** Updates made so far. */
  step: number
  tensors: Map<string, Float32Array>
}

/** Updates a fixed list of parameters in place. */
export interface Optimizer {
  /** One update; `gradients` stand in the order of the parameters and are only read. */
  update(gradients: readonly Float32Array[], learningRate: number): void
  /** The live state, not a copy: write it out before the next update. */
  state(): OptimizerState
  /** Takes over a saved state by copying it. @throws EngineError `invalid` when names or sizes differ. */
  restore(state: OptimizerState): void
}

/** What differs between the parameters of one optimizer. */
export interface GroupOptions {
  weightDecay: number
  /** Which parameters decay; all when left out. See `decays`. */
  decays?: (parameter: Parameter) => boolean
  /** A parameter's share of the learning rate (LoRA+); 1 when left out. */
  rateFactor?: (parameter: Parameter) => number
}

/** A parameter with what is its own; `index` is its place among the gradients. */
export interface Slot {
  readonly index: number
  readonly parameter: Parameter
  readonly weightDecay: number
  readonly rateFactor: number
}

export function slotsOf(parameters: readonly Parameter[], options: GroupOptions): Slot[] {
  const { weightDecay, decays = () => true, rateFactor = () => 1 } = options
  return parameters.map((parameter, index) => ({
    index,
    parameter,
    weightDecay: decays(parameter) ? weightDecay : 0,
    rateFactor: rateFactor(parameter),
  }))
}

/** transformers' rule of what weight decay is for: not for biases, nor for the weights of norms (one-dimensional). */
export function decays({ name, shape }: Parameter): boolean {
  return shape.length > 1 && !/bias|layernorm|rmsnorm|(?:^|[._])norm(?:$|\.)/i.test(name)
}

/** Copies one array of a saved state into `target`. @throws EngineError `invalid` when it is missing or of another size. */
function restoreTensor(state: OptimizerState, name: string, target: Float32Array): void {
  const saved = state.tensors.get(name)
  if (saved?.length === target.length) {
    target.set(saved)
    return
  }
  const found = saved ? `has ${saved.length} values` : 'is missing'
  throw new EngineError(
    'invalid',
    'optimizer_state_mismatch',
    `The optimizer state does not belong to these parameters: ${name} ${found}, ${target.length} expected.`,
    { param: 'resume_from_checkpoint' },
  )
}

/** An optimizer whose whole state is the step and the given arrays, by name. */
export function withState(
  tensors: ReadonlyMap<string, Float32Array>,
  update: (gradients: readonly Float32Array[], learningRate: number, step: number) => void,
): Optimizer {
  let step = 0
  return {
    update(gradients, learningRate) {
      step++
      update(gradients, learningRate, step)
    },
    state: () => ({ step, tensors: new Map(tensors) }),
    restore(state) {
      for (const [name, target] of tensors) restoreTensor(state, name, target)
      step = state.step
    },
  }
}
