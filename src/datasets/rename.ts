import { EngineError } from '../../engine/errors.ts'
import type { DatasetFiles } from './files.ts'
import { type Row, readRows } from './readers/index.ts'
import type { DatasetRegistry, DatasetSource } from './registry.ts'
import { stageFile } from './staging.ts'
import { registerUpload, type UploadEntry } from './upload.ts'

/** Question-and-answer keys to Alpaca's. */
const ALPACA_NAMES: Readonly<Record<string, string>> = { query: 'instruction', response: 'output' }

/**
 * Writes a copy of a dataset whose rows have some keys renamed, and registers it as a new one. The rows stream from file to
 * file as a JSON array, one row a line; keys that are not renamed stay as they are.
 *
 * @param options.rename old key to new key.
 * @throws EngineError `unknown_column` for a key that no row has, `column_exists` where a new key is taken in a row,
 * `dataset_exists`; nothing stays behind after an error.
 */
export async function renameKeys(
  registry: DatasetRegistry,
  sourceName: string,
  options: { name: string; rename?: Readonly<Record<string, string>>; entry?: UploadEntry },
): Promise<{ source: DatasetSource; rows: number }> {
  const rename = options.rename ?? ALPACA_NAMES
  checkTargets(rename)
  await registry.checkNew(options.name)
  const { files } = await registry.get(sourceName)
  const counter = { rows: 0 }
  const staged = await stageFile(encodeRows(renamedRows(files, rename, counter)), {
    directory: registry.uploadDirectory,
    extension: '.json',
    limitBytes: Number.POSITIVE_INFINITY,
  })
  const source = await registerUpload(registry, staged, options.name, options.entry ?? {})
  return { source, rows: counter.rows }
}

async function* renamedRows(
  files: DatasetFiles,
  rename: Readonly<Record<string, string>>,
  counter: { rows: number },
): AsyncGenerator<Row> {
  const unseen = new Set(Object.keys(rename))
  let firstKeys = ''
  for await (const { row, place } of readRows(files)) {
    if (counter.rows++ === 0) firstKeys = Object.keys(row).join(', ')
    const renamed: Row = {}
    for (const [key, value] of Object.entries(row)) {
      unseen.delete(key)
      const target = Object.hasOwn(rename, key) ? rename[key]! : key
      if (Object.hasOwn(renamed, target)) {
        throw new EngineError('invalid', 'column_exists', `${place}: two keys would be named "${target}".`, {
          param: `rename.${key}`,
        })
      }
      renamed[target] = value
    }
    yield renamed
  }
  const [missing] = unseen
  if (missing === undefined) return
  throw new EngineError(
    'invalid',
    'unknown_column',
    `No row has the key "${missing}". The first row's keys are: ${firstKeys}.`,
    { param: `rename.${missing}` },
  )
}

async function* encodeRows(rows: AsyncIterable<Row>): AsyncGenerator<Uint8Array> {
  const encoder = new TextEncoder()
  let separator = '[\n'
  for await (const row of rows) {
    yield encoder.encode(`${separator}  ${JSON.stringify(row)}`)
    separator = ',\n'
  }
  yield encoder.encode(separator === '[\n' ? '[]\n' : '\n]\n')
}

function checkTargets(rename: Readonly<Record<string, string>>): void {
  const targets = Object.values(rename)
  const twice = targets.find((target, index) => targets.indexOf(target) !== index)
  if (twice === undefined && !targets.includes('__proto__')) return
  throw new EngineError(
    'invalid',
    'column_exists',
    `Each new key can be used once: ${twice ?? '__proto__'}.`,
    {
      param: 'rename',
    },
  )
}
