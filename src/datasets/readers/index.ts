import { basename } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'
import type { DatasetFiles, FileType } from '../files.ts'
import { typeName } from '../type-name.ts'
import { readCsv } from './csv.ts'
import { readJson } from './json.ts'
import { readJsonLines } from './json-lines.ts'
import { readParquet } from './parquet.ts'
import { readText } from './text.ts'

/** One row of a data file, its keys being column names. */
export type Row = Record<string, unknown>

/** A row with where it stands, for messages: `name.json row 3`, `name.jsonl line 7`. */
export interface LocatedRow {
  row: Row
  place: string
}

const READERS: Record<FileType, (path: string) => AsyncIterable<{ value: unknown; place: string }>> = {
  json: readJson,
  jsonl: readJsonLines,
  csv: readCsv,
  parquet: readParquet,
  text: readText,
}

/** Rows nested deeper than this are refused: nothing that is trained on needs it, and later code may recurse. */
const MAX_DEPTH = 64

/**
 * The rows of a dataset's files, one after another, without holding a file in memory (a parquet file: a group of rows).
 *
 * @throws EngineError `malformed_row` naming the file and the line or row.
 */
export async function* readRows(files: Pick<DatasetFiles, 'type' | 'paths'>): AsyncGenerator<LocatedRow> {
  for (const path of files.paths) {
    for await (const { value, place } of READERS[files.type](path)) {
      const where = `${basename(path)} ${place}`
      if (typeof value !== 'object' || value === null || Array.isArray(value)) {
        throw new EngineError(
          'invalid',
          'malformed_row',
          `${where}: a row must be a JSON object, not ${typeName(value)}.`,
        )
      }
      if (isDeeper(value, MAX_DEPTH)) {
        throw new EngineError('invalid', 'malformed_row', `${where}: nested deeper than ${MAX_DEPTH} levels.`)
      }
      yield { row: value as Row, place: where }
    }
  }
}

/** How many rows the files have. */
export async function countRows(files: Pick<DatasetFiles, 'type' | 'paths'>): Promise<number> {
  let rows = 0
  for await (const _ of readRows(files)) rows++
  return rows
}

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return levels === 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1))
}
