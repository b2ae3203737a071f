import { EngineError } from '../../engine/errors.ts'
import type { TextWindows } from '../../engine/export/export-model.ts'
import { calibrationWindows } from '../../engine/quant/calibration.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { loadDataset } from '../datasets/load.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { contextLength } from '../models/model-folder.ts'
import type { ExportTask } from './job-tasks.ts'

/** Longest window that a report measures on. */
const REPORT_WINDOW = 512

/** The calibration windows of a task that has a dataset for them. @throws EngineError as calibrationWindows does. */
export async function calibrationText({
  calibration,
  model,
  seed,
  datasetDir,
}: ExportTask): Promise<TextWindows | undefined> {
  if (!calibration) return undefined
  const { dataset } = calibration
  const texts = await textsOf(dataset, datasetDir)
  const tokenizer = loadTokenizer(model.baseFolder)
  return {
    dataset,
    windows: calibrationWindows(texts, (text) => tokenizer.encode(text), { ...calibration, seed }),
  }
}

/**
 * The first tokens of the report's text, in windows of equal length.
 *
 * @throws EngineError `invalid` when the text has fewer than two tokens.
 */
export async function reportText({
  report,
  model,
  datasetDir,
}: ExportTask): Promise<TextWindows | undefined> {
  if (!report) return undefined
  const { dataset, tokens: wanted } = report
  const text = (await textsOf(dataset, datasetDir)).join('\n\n')
  const tokens = loadTokenizer(model.baseFolder).encode(text).subarray(0, wanted)
  const longest = Math.min(REPORT_WINDOW, contextLength(model.baseFolder) ?? REPORT_WINDOW, tokens.length)
  if (longest < 2) {
    throw new EngineError(
      'invalid',
      'report_text_too_short',
      `The dataset ${dataset} has ${tokens.length} tokens of text; a report needs at least 2.`,
      { param: 'report_dataset' },
    )
  }
  const count = Math.floor(tokens.length / longest)
  const windows = Array.from({ length: count }, (_, index) =>
    tokens.slice(index * longest, (index + 1) * longest),
  )
  return { dataset, windows }
}

/** The texts of a dataset's rows: what continued pre-training would learn from. */
async function textsOf(dataset: string, directory: string): Promise<string[]> {
  const registry = new DatasetRegistry({ directories: [directory] })
  const { conversations } = await loadDataset(registry, dataset, { stage: 'pt' })
  return conversations.map((row) => {
    if (row.kind === 'text') return row.text
    throw new Error(`${dataset}: a row of kind ${row.kind} came where text was read`)
  })
}
