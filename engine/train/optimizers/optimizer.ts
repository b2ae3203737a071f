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
