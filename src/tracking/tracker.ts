import type { TrainConfig } from '../../engine/train/config.ts'

/** What a tracker is told when a run begins or goes on. */
export interface TrackedRun {
  id: string
  config: TrainConfig
  /** The run's folder. */
  outputDir: string
  /** The step of the checkpoint that it goes on from; 0 for a new one. */
  resumedStep: number
}

/** The values of one moment by transformers' names (loss, eval_loss, rewards/chosen, …). */
export interface TrackedValues {
  /** Milliseconds since 1970. */
  time: number
  step: number
  values: Readonly<Record<string, number>>
}

/** Where a run's curves are sent. What it throws becomes a warning and never ends the run. */
export interface Tracker {
  readonly name: string
  start(run: TrackedRun): Promise<void> | void
  log(values: TrackedValues): Promise<void> | void
  /** The run has come to its end. */
  finish(time: number): Promise<void> | void
}
