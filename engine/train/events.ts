/** Where a run stands after an optimizer step. Times are seconds, over all attempts of the run. */
export interface Progress {
  /** Optimizer steps done. */
  step: number
  totalSteps: number
  /** Passes over the data, with the fraction of the current one. */
  epoch: number
  /** 0 to 100. */
  percentage: number
  elapsedSeconds: number
  remainingSeconds: number
  /** Tokens that were read, without padding. */
  tokens: number
  tokensPerSecond: number
}

/** One entry of trainer_state.json's log_history, with transformers' field names. */
export type LogEntry = { step: number; epoch: number } & Record<string, number>

/** What a finished run reports: train_results.json, and eval_results.json when it was evaluated. */
export interface Results {
  train: Record<string, number>
  eval?: Record<string, number>
}

/** What transformers keeps in trainer_state.json, as far as it changes. */
export interface History {
  step: number
  epoch: number
  maxSteps: number
  epochs: number
  tokens: number
  totalFlos: number
  /** The best evaluation, where the run looks for one. */
  best?: { step: number; value: number }
  entries: readonly LogEntry[]
}

export type StopReason = 'early_stopping' | 'flattened'

export type TrainEvent =
  | {
      type: 'start'
      totalSteps: number
      stepsPerEpoch: number
      epochs: number
      examples: number
      evalExamples: number
      trainableParameters: number
      allParameters: number
      /** The step of the checkpoint that the run goes on from; 0 for a new one. */
      resumedStep: number
    }
  /** After every optimizer step: the loss is that of this step alone. */
  | ({ type: 'step'; loss: number; learningRate: number; gradNorm: number } & Progress)
  /** Every logging_steps: the loss is the mean since the last entry. */
  | ({
      type: 'log'
      loss: number
      learningRate: number
      gradNorm: number
      /** What the stage logs beside the loss (rewards/chosen, …), as means since the last entry. */
      metrics: Readonly<Record<string, number>>
    } & Progress)
  /** `metrics` has every value of this evaluation that is logged, by its name in the log (eval_loss, …). */
  | ({ type: 'eval'; loss: number; seconds: number; metrics: Readonly<Record<string, number>> } & Progress)
  | { type: 'checkpoint'; path: string; step: number; removed: readonly string[] }
  /** The run ends before its last step, with a checkpoint. */
  | { type: 'stop'; step: number; reason: StopReason; message: string }
  /** The parameters are those of the best evaluation again (load_best_model_at_end). */
  | { type: 'best'; step: number; metric: string; value: number }
  | { type: 'warning'; code: string; message: string }
  /** The last event of a run that came to its end. */
  | ({ type: 'done'; results: Results; history: History } & Progress)
