import { extname } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import type { Dataset, DatasetPreviewQuery, DatasetService, StagedUpload } from '../../routes/services.ts'
import { type PreviewOptions, previewRows } from '../datasets/preview.ts'
import type { DatasetSource } from '../datasets/registry.ts'
import { renameKeys } from '../datasets/rename.ts'
import type { StagedFile } from '../datasets/staging.ts'
import { registerUpload, stageUpload } from '../datasets/upload.ts'
import type { ServiceContext } from './context.ts'

/** Datasets over HTTP: list, upload, convert, preview. */
export function datasetService({ datasets, models, settings }: ServiceContext): DatasetService {
  /** Which file on disk an upload that routes hold stands for. */
  const stagedFiles = new WeakMap<StagedUpload, StagedFile>()

  async function toWire(name: string): Promise<Dataset> {
    const summary = (await datasets.list()).find((candidate) => candidate.name === name)
    if (!summary) throw new Error(`${name} is not registered`)
    return describe(summary)
  }

  async function describe({ name, entry, source }: Summary): Promise<Dataset> {
    const failed = source instanceof EngineError
    const rows = failed ? null : await datasets.countRows(source).catch(unreadable)
    return {
      name,
      object: 'dataset',
      formatting: formattingOf(entry.formatting),
      file_name: typeof entry.file_name === 'string' ? entry.file_name : '',
      columns: namesOf(entry.columns),
      tags: namesOf(entry.tags),
      rows: typeof rows === 'number' ? rows : null,
      bytes: failed ? null : source.files.bytes,
      error: failed ? source.message : rows instanceof EngineError ? rows.message : null,
    }
  }

  async function previewOptions(query: DatasetPreviewQuery): Promise<PreviewOptions> {
    const { offset, limit, stage } = query
    const model = query.model === undefined ? undefined : await models.resolve(query.model)
    return {
      offset,
      limit,
      stage,
      tokenizer: model && loadTokenizer(model.baseFolder),
      template: model?.template,
      cutoffLength: query.cutoff_len,
      trainOnPrompt: query.train_on_prompt,
      maskHistory: query.mask_history,
    }
  }

  return {
    async list() {
      return Promise.all((await datasets.list()).map(describe))
    },
    async stage(fileName, content) {
      const limitBytes = settings.limits.uploadBytes
      const file = await stageUpload(datasets, content, { extension: extname(fileName), limitBytes })
      const upload: StagedUpload = { fileName, bytes: file.bytes, discard: () => file.discard() }
      stagedFiles.set(upload, file)
      return upload
    },
    async create({ name, ...entry }, upload) {
      const file = stagedFiles.get(upload)
      if (!file) throw new Error('This upload was not staged here.')
      await registerUpload(datasets, file, name, entry)
      return toWire(name)
    },
    async convert(name, { name: target, rename, formatting }) {
      await renameKeys(datasets, name, { name: target, rename, entry: { formatting } })
      return toWire(target)
    },
    async preview(name, query) {
      const source = await datasets.get(name)
      const rows = await previewRows(source, await previewOptions(query))
      return {
        object: 'dataset.preview',
        dataset: name,
        model: query.model ?? null,
        offset: query.offset,
        total_rows: await datasets.countRows(source),
        data: rows.map(({ index, raw, text, tokens, rejectedTokens, truncated, error }) => ({
          index,
          raw,
          text,
          tokens,
          rejected_tokens: rejectedTokens,
          truncated,
          error,
        })),
      }
    },
  }
}

interface Summary {
  name: string
  entry: Record<string, unknown>
  source: DatasetSource | EngineError
}

/** A file that does not parse belongs into the list with its error. */
function unreadable(error: unknown): EngineError {
  if (error instanceof EngineError) return error
  throw error
}

function formattingOf(value: unknown): Dataset['formatting'] {
  return value === 'sharegpt' || value === 'openai' ? value : 'alpaca'
}

function namesOf(value: unknown): Record<string, string> | null {
  if (typeof value !== 'object' || value === null) return null
  const pairs = Object.entries(value).filter((pair): pair is [string, string] => typeof pair[1] === 'string')
  return Object.fromEntries(pairs)
}
