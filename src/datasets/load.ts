import { EngineError } from '../../engine/errors.ts'
import { createRandom } from '../../engine/random.ts'
import type { TrainConversation } from '../../engine/text/conversation.ts'
import { lendAnswers } from './convert/feedback.ts'
import { convertRow, type Stage, stageMismatch } from './convert/index.ts'
import { RowError } from './convert/row-error.ts'
import { type LocatedRow, readRows } from './readers/index.ts'
import type { DatasetRegistry, DatasetSource } from './registry.ts'

export interface LoadOptions {
  stage: Stage
  /** Read only the first rows of each dataset (LLaMA-Factory's max_samples). */
  maxSamples?: number
  /** For the choice of rows where an entry has num_samples. */
  seed?: number
}

/** A row that could not be used. */
export interface SkippedRow {
  dataset: string
  /** File and row, as in `identity.json row 3`. */
  place: string
  reason: string
}

export interface LoadedDataset {
  conversations: TrainConversation[]
  /** Rows that were read, skipped ones included. */
  rows: number
  /** How many rows were skipped, and the first of them with their reasons. */
  skippedCount: number
  skipped: SkippedRow[]
}

/** Skipped rows that are described one by one; more are only counted. */
const MAX_DESCRIBED = 100

/**
 * Reads one or more datasets (a comma-separated list, as LLaMA-Factory writes it) as conversations, in their order.
 *
 * @throws EngineError `dataset_required`, `unknown_dataset`, `stage_mismatch`, `malformed_row`, or `no_valid_samples` when a dataset has no
 * row that can be used.
 */
export async function loadDataset(
  registry: DatasetRegistry,
  names: string | readonly string[],
  options: LoadOptions,
): Promise<LoadedDataset> {
  const loaded: LoadedDataset = { conversations: [], rows: 0, skippedCount: 0, skipped: [] }
  for (const name of datasetNames(names)) {
    const source = await registry.get(name)
    checkStage(source, options.stage)
    await appendDataset(loaded, source, options)
  }
  lendAnswers(loaded.conversations.filter((row) => row.kind === 'feedback'))
  return loaded
}

/** The dataset names of a config's `dataset`. @throws EngineError `dataset_required` when there is none. */
function datasetNames(names: string | readonly string[]): string[] {
  const list = (typeof names === 'string' ? names.split(',') : names).map((name) => name.trim())
  const given = list.filter((name) => name !== '')
  if (given.length === 0) {
    throw new EngineError('invalid', 'dataset_required', 'Please specify dataset for training.', {
      param: 'dataset',
    })
  }
  return given
}

/** @throws EngineError `stage_mismatch` when the dataset is for other stages. */
function checkStage({ name, attributes }: DatasetSource, stage: Stage): void {
  const mismatch = stageMismatch(attributes, stage)
  if (mismatch === undefined) return
  throw new EngineError(
    'invalid',
    'stage_mismatch',
    `The dataset is not applicable in the current training stage. Dataset ${name}: ${mismatch}.`,
    { param: 'dataset' },
  )
}

async function appendDataset(
  loaded: LoadedDataset,
  source: DatasetSource,
  options: LoadOptions,
): Promise<void> {
  const before = loaded.conversations.length
  let lastReason = 'it has no rows'
  for await (const { row, place } of selectRows(source, options)) {
    loaded.rows++
    try {
      loaded.conversations.push({
        ...convertRow(row, source.attributes, options.stage),
        place,
        dataset: source.name,
      })
    } catch (error) {
      if (!(error instanceof RowError)) throw error
      lastReason = `${place}: ${error.message}`
      loaded.skippedCount++
      if (loaded.skipped.length < MAX_DESCRIBED) {
        loaded.skipped.push({ dataset: source.name, place, reason: error.message })
      }
    }
  }
  if (loaded.conversations.length > before) return
  throw new EngineError(
    'invalid',
    'no_valid_samples',
    `Cannot find valid samples, check \`data/README.md\` for the data format. Dataset ${source.name}: ${lastReason}.`,
    { param: 'dataset' },
  )
}

/** The rows that count: all, `num_samples` chosen by the seed, of these the first `maxSamples`. */
async function* selectRows(source: DatasetSource, options: LoadOptions): AsyncGenerator<LocatedRow> {
  const limit = options.maxSamples ?? Number.POSITIVE_INFINITY
  const { numSamples } = source.attributes
  if (numSamples !== null) {
    const all: LocatedRow[] = []
    for await (const row of readRows(source.files)) all.push(row)
    for (const index of chooseRows(all.length, numSamples, options.seed ?? 42).slice(0, limit))
      yield all[index]!
    return
  }
  let taken = 0
  for await (const row of readRows(source.files)) {
    if (taken++ >= limit) return
    yield row
  }
}

/** `wanted` row numbers in random order: each row once, and rows again at random when more are wanted than there are. */
function chooseRows(count: number, wanted: number, seed: number): number[] {
  const random = createRandom(seed)
  const chosen = random.shuffle(Array.from({ length: count }, (_, index) => index)).slice(0, wanted)
  while (count > 0 && chosen.length < wanted) chosen.push(random.nextInt(count))
  return chosen
}
