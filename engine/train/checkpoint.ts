import { existsSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { elementCount } from '../tensor.ts'
import { commitFolder } from '../weights/atomic-folder.ts'
import { encodeFloat32 } from '../weights/dtypes.ts'
import { SafetensorsWriter, WeightFolder } from '../weights/safetensors.ts'
import { type TrainConfig, toYaml } from './config.ts'
import { MANIFEST_FILE, manifestProblem, writeManifest } from './manifest.ts'
import type { Optimizer, OptimizerState } from './optimizers/optimizer.ts'
import type { RunState, SavedRun } from './run-state.ts'
import type { Parameter, TrainStep } from './step.ts'
import { checkpointName, readTrainerState, TRAINER_STATE_FILE, trainerState } from './trainer-state.ts'

export const TRAINING_ARGS_FILE = 'training_args.yaml'
const OPTIMIZER_FILE = 'optimizer.safetensors'
const SCHEDULER_FILE = 'scheduler.json'
const RANDOM_FILE = 'rng_state.json'
const RUN_STATE_FILE = 'run_state.json'
/** Prefix of the parameters in optimizer.safetensors: float32, whatever dtype the model's own file has. */
const MASTER = 'master.'

/** What a run goes on from. */
export interface Checkpoint {
  parameters: Map<string, Float32Array>
  optimizer: OptimizerState
  run: SavedRun
}

/**
 * Writes outputDir/checkpoint-N, whole or not at all, then removes the oldest ones beyond save_total_limit, but never the
 * one of the best evaluation where load_best_model_at_end needs it.
 *
 * @returns the folder, and the folders that were removed.
 */
export async function saveCheckpoint(options: {
  outputDir: string
  config: TrainConfig
  step: TrainStep
  optimizer: Optimizer
  run: RunState
  lastLearningRate: number
  writeModel: (folder: string) => Promise<void> | void
}): Promise<{ path: string; removed: string[] }> {
  const { outputDir, config, run } = options
  const path = join(outputDir, checkpointName(run.step))
  rmSync(path, { recursive: true, force: true }) // of an attempt that went another way, or damaged
  await commitFolder(path, async (folder) => {
    await options.writeModel(folder)
    if (!config.save_only_model) writeResumeState(folder, options)
    writeFileSync(join(folder, TRAINER_STATE_FILE), trainerState(run.history(), config))
    writeFileSync(join(folder, TRAINING_ARGS_FILE), toYaml(config))
    writeManifest(folder)
  })
  return { path, removed: prune(outputDir, path, options) }
}

function writeResumeState(
  folder: string,
  options: {
    config: TrainConfig
    step: TrainStep
    optimizer: Optimizer
    run: RunState
    lastLearningRate: number
  },
): void {
  const { random, ...counters } = options.run.snapshot()
  writeOptimizer(join(folder, OPTIMIZER_FILE), options.step.parameters, options.optimizer.state())
  writeJson(join(folder, SCHEDULER_FILE), {
    lr_scheduler_type: options.config.lr_scheduler_type,
    last_epoch: counters.step,
    last_lr: options.lastLearningRate,
  })
  writeJson(join(folder, RANDOM_FILE), { dropout: random })
  writeJson(join(folder, RUN_STATE_FILE), counters)
}

function writeOptimizer(path: string, parameters: readonly Parameter[], state: OptimizerState): void {
  const tensors = new Map(parameters.map(({ name, data }) => [MASTER + name, data]))
  for (const [name, data] of state.tensors) tensors.set(name, data)
  const shapes = new Map(parameters.map(({ name, shape }) => [name, shape]))
  const planned = Array.from(tensors, ([name, data]) => {
    const whole = shapes.get(name.slice(name.indexOf('.') + 1)) ?? []
    const shape = elementCount(whole) === data.length ? whole : [data.length]
    return { name, dtype: 'F32' as const, shape }
  })
  const writer = new SafetensorsWriter(path, planned, { format: 'pt', step: String(state.step) })
  try {
    for (const [name, data] of tensors) writer.write(name, encodeFloat32(data, 'float32'))
    writer.finish()
  } catch (error) {
    writer.abort()
    throw error
  }
}

const randomSchema = z.object({ dropout: z.tuple([z.number(), z.number(), z.number(), z.number()]) })
const runStateSchema = z.object({
  step: z.number().int().min(0),
  windowLoss: z.number(),
  windowSteps: z.number().int(),
  windowMetrics: z.record(z.string(), z.object({ sum: z.number(), count: z.number() })).default({}),
  best: z.object({ step: z.number().int(), value: z.number(), since: z.number().int() }).optional(),
  flatAt: z.number().int().optional(),
  lossSum: z.number(),
  tokens: z.number().int(),
  elapsedSeconds: z.number(),
  entries: z.array(z.record(z.string(), z.number())),
  config: z.record(z.string(), z.unknown()),
  dataHash: z.string(),
})

/**
 * Reads a checkpoint of this engine for `parameters`.
 *
 * @throws EngineError `not_found`; `invalid` when it is damaged or belongs to other parameters; `conflict` when it was
 * saved without what resuming needs.
 */
export function loadCheckpoint(folder: string, parameters: readonly Parameter[]): Checkpoint {
  requireResumable(folder)
  const problem = manifestProblem(folder)
  if (problem) throw damaged(folder, problem)
  const counters = readJson(folder, RUN_STATE_FILE, runStateSchema)
  const random = readJson(folder, RANDOM_FILE, randomSchema).dropout
  const { parameters: values, optimizer } = readOptimizer(folder, parameters)
  return { parameters: values, optimizer, run: { ...counters, random } as SavedRun }
}

/** Only the parameters of a checkpoint. @throws EngineError as loadCheckpoint does. */
export function loadParameters(folder: string, parameters: readonly Parameter[]): Map<string, Float32Array> {
  return loadCheckpoint(folder, parameters).parameters
}

function readOptimizer(folder: string, parameters: readonly Parameter[]): Omit<Checkpoint, 'run'> {
  const file = WeightFolder.open(folder, { fileName: OPTIMIZER_FILE })
  try {
    checkParameters(folder, file, parameters)
    const values = new Map(parameters.map(({ name }) => [name, file.readFloat32(MASTER + name)]))
    const state = [...file.entries.keys()].filter((name) => !name.startsWith(MASTER))
    const tensors = new Map(state.map((name) => [name, file.readFloat32(name)]))
    return { parameters: values, optimizer: { step: Number(file.metadata.step), tensors } }
  } finally {
    file.close()
  }
}

function checkParameters(folder: string, file: WeightFolder, parameters: readonly Parameter[]): void {
  const wanted = new Map(parameters.map(({ name, shape }) => [name, shape]))
  const saved = [...file.entries.values()].filter(({ name }) => name.startsWith(MASTER))
  const extra = saved.find(({ name }) => !wanted.has(name.slice(MASTER.length)))
  if (extra) throw otherRun(folder, `it also holds ${extra.name.slice(MASTER.length)}`)
  for (const [name, shape] of wanted) {
    const found = file.entries.get(MASTER + name)?.shape
    if (!found) throw otherRun(folder, `it lacks ${name}`)
    if (found.join() !== shape.join()) {
      throw otherRun(folder, `${name} has shape [${found}], this run needs [${shape}]`)
    }
  }
}

/** A checkpoint as a list shows it. */
export interface CheckpointInfo {
  step: number
  path: string
  epoch: number | null
  /** The last logged training loss and evaluation loss up to it. */
  loss: number | null
  evalLoss: number | null
  bytes: number
  createdAt: Date
  /** Whether it holds what resuming needs; its files' digests are only checked when it is used. */
  resumable: boolean
}

/** The checkpoint-N folders of a run, by step. A missing folder has none. */
export function listCheckpoints(outputDir: string): CheckpointInfo[] {
  return checkpointFolders(outputDir).map(({ step, path }) => {
    const state = readTrainerState(path)
    const latest = (field: string) => {
      const value = state?.log_history.findLast((entry) => typeof entry[field] === 'number')?.[field]
      return typeof value === 'number' ? value : null
    }
    return {
      step,
      path,
      epoch: state?.epoch ?? null,
      loss: latest('loss'),
      evalLoss: latest('eval_loss'),
      bytes: readdirSync(path).reduce((sum, name) => sum + statSync(join(path, name)).size, 0),
      createdAt: statSync(path).mtime,
      resumable: existsSync(join(path, RUN_STATE_FILE)),
    }
  })
}

/** The last checkpoint of a run that is whole and can be resumed; damaged ones are passed over. */
export function latestCheckpoint(outputDir: string): string | undefined {
  return checkpointFolders(outputDir).findLast(
    ({ path }) => existsSync(join(path, RUN_STATE_FILE)) && manifestProblem(path) === undefined,
  )?.path
}

/** @throws EngineError `not_found` or `conflict` saying why a run can't go on from `folder`. */
export function requireResumable(folder: string): void {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory()) {
    throw new EngineError('not_found', 'checkpoint_not_found', `There is no checkpoint folder ${folder}.`, {
      param: 'resume_from_checkpoint',
    })
  }
  if (existsSync(join(folder, RUN_STATE_FILE))) return
  const why = existsSync(join(folder, MANIFEST_FILE))
    ? 'it was saved with save_only_model, so it has no optimizer state'
    : `it has no ${RUN_STATE_FILE}; only checkpoints that Anneal wrote can be resumed`
  throw new EngineError('conflict', 'checkpoint_not_resumable', `${folder} cannot be resumed: ${why}.`, {
    param: 'resume_from_checkpoint',
  })
}

function checkpointFolders(outputDir: string): { step: number; path: string }[] {
  if (!existsSync(outputDir)) return []
  return readdirSync(outputDir, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && /^checkpoint-\d+$/.test(entry.name))
    .map(({ name }) => ({ step: Number(name.slice('checkpoint-'.length)), path: join(outputDir, name) }))
    .sort((a, b) => a.step - b.step)
}

/** Removes the checkpoints with the lowest steps beyond save_total_limit, never `newest` nor the best. */
function prune(
  outputDir: string,
  newest: string,
  { config, run }: { config: TrainConfig; run: RunState },
): string[] {
  const limit = config.save_total_limit
  if (limit === undefined) return []
  const best = config.load_best_model_at_end ? run.best?.step : undefined
  const others = checkpointFolders(outputDir).filter(({ path, step }) => path !== newest && step !== best)
  const kept = best === undefined || best === run.step ? limit - 1 : Math.max(0, limit - 2)
  const removed = others.slice(0, Math.max(0, others.length - kept)).map(({ path }) => path)
  for (const path of removed) rmSync(path, { recursive: true, force: true })
  return removed
}

function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, null, 2)}\n`)
}

function readJson<T>(folder: string, file: string, schema: z.ZodType<T>): T {
  try {
    return schema.parse(JSON.parse(readFileSync(join(folder, file), 'utf8')))
  } catch (cause) {
    throw damaged(folder, `${file} is not as expected`, cause)
  }
}

function damaged(folder: string, problem: string, cause?: unknown): EngineError {
  const message = `${basename(folder)} is damaged: ${problem}. Resume from an earlier checkpoint.`
  return new EngineError('invalid', 'checkpoint_damaged', message, { param: 'resume_from_checkpoint', cause })
}

function otherRun(folder: string, difference: string): EngineError {
  const message = `${basename(folder)} was saved by a run with other trainable weights: ${difference}.`
  return new EngineError('invalid', 'checkpoint_mismatch', message, { param: 'resume_from_checkpoint' })
}
