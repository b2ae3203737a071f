import { brotliDecompressSync, gunzipSync } from 'node:zlib'
import {
  asyncBufferFromFile,
  type Compressors,
  parquetMetadataAsync,
  parquetReadObjects,
  toJson,
} from 'hyparquet'
import { EngineError, messageOf } from '../../../engine/errors.ts'
import { malformedRow } from './decode.ts'

/** Rows that are decoded together. */
const GROUP = 1000

const compressors: Compressors = {
  GZIP: (input) => gunzipSync(input),
  BROTLI: (input) => brotliDecompressSync(input),
}

/** Parquet, uncompressed or with snappy, gzip or brotli; decoded a group of rows at a time. */
export async function* readParquet(path: string): AsyncGenerator<{ value: unknown; place: string }> {
  let number = 0
  try {
    const file = await asyncBufferFromFile(path)
    const metadata = await parquetMetadataAsync(file)
    const total = Number(metadata.num_rows)
    for (let start = 0; start < total; start += GROUP) {
      const rowEnd = Math.min(start + GROUP, total)
      const rows = await parquetReadObjects({ file, metadata, compressors, rowStart: start, rowEnd })
      for (const row of rows) {
        number++
        yield { value: toJson(row), place: `row ${number}` }
      }
    }
  } catch (cause) {
    if (cause instanceof EngineError) throw cause
    const reason = messageOf(cause)
    throw malformedRow(path, `row ${number + 1}`, `not valid Parquet (${reason})`, cause)
  }
}
