import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { isAbsolute, join, resolve } from 'node:path'
import { EngineError } from '../errors.ts'
import { latestCheckpoint, listCheckpoints, requireResumable } from './checkpoint.ts'
import type { TrainConfig } from './config.ts'

type OutputConfig = Pick<TrainConfig, 'overwrite_output_dir' | 'resume_from_checkpoint'>

/** What a run does with its folder. */
export type OutputPlan =
  | { action: 'create' }
  /** Remove what an earlier run left. */
  | { action: 'overwrite' }
  | { action: 'resume'; checkpoint: string }

/** What a run has in its folder before its first checkpoint. */
const BEFORE_FIRST_CHECKPOINT =
  /^(trainer_log\.jsonl|training_args\.yaml|running_log\.txt|derived_base|pissa_init|loftq_init|runs|mlflow_run\.json|\..+\.partial-.+)$/
/** What no other program than a trainer writes: by these a folder is known as a run's. */
const RUN_SIGNS =
  /^(checkpoint-\d+|adapter_model\.safetensors|trainer_(state\.json|log\.jsonl)|training_args\.(yaml|bin))$/
const MODEL_WEIGHTS = /\.(safetensors|gguf|bin)$/
/** What runs write: only this is removed by overwrite_output_dir. The log is whose process it is. */
const RUN_FILES = new RegExp(
  [
    '(generation_)?config\\.json',
    '(tokenizer|special_tokens|added_tokens|chat_template|vocab|merges)[^/]*',
    'checkpoint-\\d+',
    '\\..+\\.partial-.+',
    'adapter_(config\\.json|model\\.safetensors)',
    'value_head\\.safetensors',
    'model(-\\d+-of-\\d+)?\\.safetensors(\\.index\\.json)?',
    '(train|eval|predict|all)_results\\.json',
    'generated_predictions\\.jsonl',
    'trainer_state\\.json',
    'trainer_log\\.jsonl',
    'training_\\w+\\.png',
    'runs',
    'mlflow_run\\.json',
    'training_args\\.yaml',
    'README\\.md',
    '(derived_base|pissa_init|pissa_converted|loftq_init)',
  ]
    .map((pattern) => `^${pattern}$`)
    .join('|'),
)

/**
 * Decides, without touching anything, how a run starts in `outputDir`, by LLaMA-Factory's rules: an explicit checkpoint
 * wins, then overwrite_output_dir, then the last checkpoint that is whole; other contents are in the way.
 *
 * @param continuing the folder belongs to this very run, which was interrupted: it is never overwritten.
 * @throws EngineError `conflict` or `not_found`, naming the field that decides.
 */
export function planOutput(outputDir: string, config: OutputConfig, continuing = false): OutputPlan {
  const { resume_from_checkpoint: from, overwrite_output_dir: overwrite } = config
  const last = () => latestCheckpoint(outputDir)
  if (continuing) {
    const checkpoint = last()
    if (checkpoint) return { action: 'resume', checkpoint }
  }
  if (typeof from === 'string') return { action: 'resume', checkpoint: namedCheckpoint(outputDir, from) }
  if (from === true) {
    const checkpoint = last()
    if (checkpoint) return { action: 'resume', checkpoint }
    const message = `No valid checkpoint found in output directory (${outputDir}). ${whyNone(outputDir)}`
    throw new EngineError('not_found', 'checkpoint_not_found', message.trim(), {
      param: 'resume_from_checkpoint',
    })
  }
  if (isVacant(outputDir)) return { action: 'create' }
  if (continuing) return { action: 'overwrite' }
  if (overwrite) {
    checkIsRun(outputDir)
    return { action: 'overwrite' }
  }
  const checkpoint = from === false ? undefined : last()
  if (checkpoint) return { action: 'resume', checkpoint }
  const sentence = 'Output directory already exists and is not empty. Please set `overwrite_output_dir`.'
  const message = `${sentence} (${outputDir}) ${from === false ? '' : whyNone(outputDir)}`
  throw new EngineError('conflict', 'output_dir_not_empty', message.trim(), { param: 'overwrite_output_dir' })
}

/**
 * Carries the plan out: makes the folder, or removes the files of an earlier run, leaving any others alone. A run that
 * goes back to an earlier checkpoint of this folder loses the later ones, which it is about to write anew.
 */
export function prepareOutput(outputDir: string, plan: OutputPlan): void {
  mkdirSync(outputDir, { recursive: true })
  if (plan.action === 'resume') {
    const checkpoints = listCheckpoints(outputDir)
    const from = checkpoints.findIndex(({ path }) => resolve(path) === resolve(plan.checkpoint))
    const later = from === -1 ? [] : checkpoints.slice(from + 1)
    for (const { path } of later) rmSync(path, { recursive: true, force: true })
  }
  if (plan.action !== 'overwrite') return
  for (const name of readdirSync(outputDir)) {
    if (RUN_FILES.test(name)) rmSync(join(outputDir, name), { recursive: true, force: true })
  }
}

/** A checkpoint by path, or by its name inside the output folder. */
function namedCheckpoint(outputDir: string, from: string): string {
  const inside = join(outputDir, from)
  const isName = /^checkpoint-\d+$/.test(from)
  const folder = isName || (!isAbsolute(from) && existsSync(inside)) ? inside : resolve(from)
  requireResumable(folder)
  return folder
}

function isVacant(outputDir: string): boolean {
  if (!existsSync(outputDir)) return true
  return readdirSync(outputDir).every((name) => BEFORE_FIRST_CHECKPOINT.test(name))
}

/** @throws EngineError `conflict` for a folder with a model that no run wrote, such as a base: it would lose its weights. */
function checkIsRun(outputDir: string): void {
  const names = readdirSync(outputDir)
  if (names.some((name) => RUN_SIGNS.test(name)) || !names.some((name) => MODEL_WEIGHTS.test(name))) return
  const message = `${outputDir} holds a model that no training run wrote, and overwrite_output_dir would remove it. Name another folder.`
  throw new EngineError('conflict', 'output_dir_not_a_run', message, { param: 'output_dir' })
}

/** Why none of a folder's checkpoints will do; empty when it has none. */
function whyNone(outputDir: string): string {
  const checkpoints = listCheckpoints(outputDir)
  if (checkpoints.length === 0) return ''
  const modelOnly = checkpoints.filter(({ resumable }) => !resumable)
  const reason =
    modelOnly.length === checkpoints.length
      ? 'without optimizer state (save_only_model), so they cannot be resumed'
      : 'damaged or without optimizer state (save_only_model), so they cannot be resumed'
  return `Its checkpoints are ${reason}.`
}
