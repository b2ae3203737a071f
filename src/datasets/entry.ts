import { z } from 'zod'
import { EngineError } from '../../engine/errors.ts'

/** The row keys of each column; null where the dataset has no such column. */
export interface Columns {
  prompt: string | null
  query: string | null
  response: string | null
  history: string | null
  messages: string | null
  system: string | null
  tools: string | null
  images: string | null
  videos: string | null
  audios: string | null
  chosen: string | null
  rejected: string | null
  kto_tag: string | null
}

/** The keys and role names inside a message list; null where messages of that role do not occur. */
export interface Tags {
  role_tag: string | null
  content_tag: string | null
  user_tag: string | null
  assistant_tag: string | null
  observation_tag: string | null
  function_tag: string | null
  system_tag: string | null
}

export type Formatting = 'alpaca' | 'sharegpt' | 'openai'

/** One entry of dataset_info.json with LLaMA-Factory's defaults filled in. */
export interface DatasetAttributes {
  fileName: string
  formatting: Formatting
  /** The rows are pairs of a chosen and a rejected answer. */
  ranking: boolean
  numSamples: number | null
  columns: Columns
  tags: Tags
}

const NO_COLUMNS: Columns = {
  prompt: null,
  query: null,
  response: null,
  history: null,
  messages: null,
  system: null,
  tools: null,
  images: null,
  videos: null,
  audios: null,
  chosen: null,
  rejected: null,
  kto_tag: null,
}

const DEFAULT_COLUMNS: Columns = {
  ...NO_COLUMNS,
  prompt: 'instruction',
  query: 'input',
  response: 'output',
  messages: 'conversations',
}

const NO_TAGS: Tags = {
  role_tag: null,
  content_tag: null,
  user_tag: null,
  assistant_tag: null,
  observation_tag: null,
  function_tag: null,
  system_tag: null,
}

const DEFAULT_TAGS: Tags = {
  role_tag: 'from',
  content_tag: 'value',
  user_tag: 'human',
  assistant_tag: 'gpt',
  observation_tag: 'observation',
  function_tag: 'function_call',
  system_tag: 'system',
}

/** OpenAI's own names, for an `openai` entry that gives no tags. */
export const OPENAI_TAGS: Tags = {
  role_tag: 'role',
  content_tag: 'content',
  user_tag: 'user',
  assistant_tag: 'assistant',
  observation_tag: 'tool',
  function_tag: 'function_call',
  system_tag: 'system',
}

/** A name for some of the keys that `known` has; another key would be ignored in silence. */
const keyNames = (known: object) =>
  z.record(z.string(), z.string().nullable()).superRefine((given, context) => {
    for (const key of Object.keys(given).filter((name) => !Object.hasOwn(known, name))) {
      context.addIssue({
        code: 'custom',
        message: `is unknown; known: ${Object.keys(known).join(', ')}`,
        path: [key],
      })
    }
  })

/** An entry as it stands in dataset_info.json. Keys that are not listed are kept and ignored, as LLaMA-Factory does. */
const rawEntry = z.looseObject({
  file_name: z.string().min(1).optional(),
  formatting: z.enum(['alpaca', 'sharegpt', 'openai']).default('alpaca'),
  ranking: z.boolean().default(false),
  split: z.string().default('train'),
  num_samples: z.number().int().positive().nullish(),
  columns: keyNames(NO_COLUMNS).nullish(),
  tags: keyNames(NO_TAGS).nullish(),
})

/** An entry as a caller writes it. */
export type RawEntry = z.input<typeof rawEntry>

const REMOTE_KEYS = ['hf_hub_url', 'ms_hub_url', 'om_hub_url', 'script_url', 'cloud_file_name']
const MEDIA_COLUMNS = ['images', 'videos', 'audios'] as const

/**
 * Reads one entry as LLaMA-Factory does: giving `columns` or `tags` resets every one that is not listed to none.
 *
 * @throws EngineError `malformed_dataset_entry` for a wrong form, `unsupported_dataset` for what this engine does not read
 * (hubs, scripts, cloud files, media, a split of a local file), naming the key.
 */
export function readEntry(name: string, raw: unknown): DatasetAttributes {
  const result = rawEntry.safeParse(raw)
  if (!result.success) {
    const [issue] = result.error.issues
    const where = [name, ...(issue?.path ?? [])].join('.')
    throw new EngineError(
      'invalid',
      'malformed_dataset_entry',
      `dataset_info.json: ${where}: ${issue?.message ?? 'wrong form'}`,
      { param: where },
    )
  }
  const entry = result.data
  const columns: Columns = entry.columns ? { ...NO_COLUMNS, ...entry.columns } : { ...DEFAULT_COLUMNS }
  if (entry.formatting === 'openai' && !entry.columns) columns.messages = 'messages'
  const defaults = entry.formatting === 'openai' ? OPENAI_TAGS : DEFAULT_TAGS
  const tags: Tags = entry.tags ? { ...NO_TAGS, ...entry.tags } : { ...defaults }
  refuseUnsupported(name, entry, columns)
  return {
    fileName: entry.file_name ?? '',
    formatting: entry.formatting,
    ranking: entry.ranking,
    numSamples: entry.num_samples ?? null,
    columns,
    tags,
  }
}

function refuseUnsupported(name: string, entry: z.output<typeof rawEntry>, columns: Columns): void {
  const remote = REMOTE_KEYS.find((key) => entry[key] !== undefined && entry[key] !== null)
  if (remote !== undefined) {
    throw unsupported(name, remote, 'is not read: download the data and register the file with `file_name`.')
  }
  if (entry.file_name === undefined) {
    throw new EngineError('invalid', 'malformed_dataset_entry', `Dataset ${name} has no \`file_name\`.`, {
      param: `${name}.file_name`,
    })
  }
  if (entry.ranking && (columns.chosen === null || columns.rejected === null)) {
    throw new EngineError(
      'invalid',
      'malformed_dataset_entry',
      `Dataset ${name} has \`ranking\`, so its \`columns\` must name \`chosen\` and \`rejected\`.`,
      { param: `${name}.columns` },
    )
  }
  if (entry.split !== 'train') {
    throw unsupported(name, 'split', `is "${entry.split}", but a local file has the split "train" only.`)
  }
  const media = MEDIA_COLUMNS.find((column) => columns[column] !== null)
  if (media !== undefined) throw unsupported(name, `columns.${media}`, 'needs a multimodal model.')
}

function unsupported(name: string, key: string, why: string): EngineError {
  return new EngineError('unsupported', 'unsupported_dataset', `Dataset ${name}: \`${key}\` ${why}`, {
    param: `${name}.${key}`,
  })
}
