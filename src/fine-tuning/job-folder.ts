import { existsSync, readFileSync, rmSync } from 'node:fs'
import { mkdir, open, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { FineTuningRequest } from '../../routes/schemas/fine-tuning.ts'
import type { Job } from '../jobs/types.ts'
import { removeFolder } from '../models/remove.ts'
import { entryOf, type FineTuningMethod, readTrainingFile } from './rows.ts'

/** What a fine-tuning job was asked for and what became of `auto`. */
export interface JobRecord {
  request: FineTuningRequest
  method: FineTuningMethod
  hyperparameters: { n_epochs: number; batch_size: number; learning_rate_multiplier: number; beta?: number }
}

const RECORD = 'job.json'
const PAUSED = 'paused'

/** Writes a job's own copy of its files as a dataset directory, so that files may be deleted while it runs. */
export async function writeDatasets(
  folder: string,
  files: { train: string; validation: string | undefined },
): Promise<{ method: FineTuningMethod; rows: number }> {
  await mkdir(folder, { recursive: true })
  const train = await copyRows(files.train, join(folder, 'train.jsonl'))
  const validation =
    files.validation === undefined
      ? undefined
      : await copyRows(files.validation, join(folder, 'validation.jsonl'))
  if (validation && validation.method !== train.method) {
    throw new EngineError(
      'invalid',
      'invalid_validation_file',
      `The validation file holds ${validation.method} examples and the training file ${train.method} ones.`,
      { param: 'validation_file' },
    )
  }
  const entry = (name: string) => entryOf(train.method, name)
  const info = { train: entry('train.jsonl'), ...(validation && { validation: entry('validation.jsonl') }) }
  await writeFile(join(folder, 'dataset_info.json'), JSON.stringify(info, null, 2))
  return train
}

async function copyRows(source: string, target: string): Promise<{ method: FineTuningMethod; rows: number }> {
  const handle = await open(target, 'w')
  let rows = 0
  let method: FineTuningMethod = 'supervised'
  try {
    for await (const read of readTrainingFile(source)) {
      method = read.method
      rows++
      await handle.writeFile(`${JSON.stringify(read.row)}\n`)
    }
  } finally {
    await handle.close()
  }
  return { method, rows }
}

export async function writeRecord(folder: string, record: JobRecord): Promise<void> {
  await writeFile(join(folder, RECORD), JSON.stringify(record, null, 2))
}

/** Where each fine-tuning job keeps its own copy of its rows, in a folder of its own. */
export const rowsRoot = (saves: string) => join(saves, 'fine-tuning')

/** Removes the copied rows of a training run that was a fine-tuning job; other runs have none. */
export async function removeCopiedRows(job: Pick<Job, 'request'>, saves: string): Promise<void> {
  const folder = job.request.dataset_dir
  if (readRecord(folder, rowsRoot(saves))) await removeFolder(folder as string, saves)
}

/** The record of a training run that is a fine-tuning job; undefined for any other run. */
export function readRecord(datasetDir: unknown, root: string): JobRecord | undefined {
  if (typeof datasetDir !== 'string' || dirname(datasetDir) !== root) return undefined
  const file = join(datasetDir, RECORD)
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as JobRecord) : undefined
}

/** A cancelled run that is to go on later carries a mark. */
export const isPaused = (folder: string) => existsSync(join(folder, PAUSED))
export const markPaused = (folder: string) => writeFile(join(folder, PAUSED), '')
export const unmarkPaused = (folder: string) => rmSync(join(folder, PAUSED), { force: true })
