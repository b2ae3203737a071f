import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import type { TrainConfig } from './config.ts'
import type { History } from './events.ts'

/** Folder of a step's checkpoint, inside the run's. */
export function checkpointName(step: number): string {
  return `checkpoint-${step}`
}

export const TRAINER_STATE_FILE = 'trainer_state.json'

/** The content of trainer_state.json, with all of transformers' fields (TrainerState in trainer_callback.py). */
export function trainerState(history: History, config: TrainConfig): string {
  const state = {
    best_global_step: history.best?.step ?? null,
    best_metric: history.best?.value ?? null,
    best_model_checkpoint:
      history.best && config.load_best_model_at_end ? checkpointName(history.best.step) : null,
    epoch: history.epoch,
    eval_steps: config.eval_steps ?? config.logging_steps,
    global_step: history.step,
    is_hyper_param_search: false,
    is_local_process_zero: true,
    is_world_process_zero: true,
    log_history: history.entries,
    logging_steps: config.logging_steps,
    max_steps: history.maxSteps,
    num_input_tokens_seen: history.tokens,
    num_train_epochs: history.epochs,
    save_steps: config.save_steps,
    stateful_callbacks: {},
    total_flos: history.totalFlos,
    train_batch_size: config.per_device_train_batch_size,
    trial_name: null,
    trial_params: null,
  }
  return `${JSON.stringify(state, null, 2)}\n`
}

const stateSchema = z.looseObject({
  epoch: z.number().nullish(),
  global_step: z.number(),
  log_history: z.array(z.record(z.string(), z.unknown())),
})

/** Reads what trainer_state.json says of losses; also one that transformers wrote. Undefined when it can't be read. */
export function readTrainerState(folder: string): z.output<typeof stateSchema> | undefined {
  try {
    return stateSchema.parse(JSON.parse(readFileSync(join(folder, TRAINER_STATE_FILE), 'utf8')))
  } catch {
    return undefined
  }
}
