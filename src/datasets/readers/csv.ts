import { pipeline, Readable } from 'node:stream'
import { CsvError, parse } from 'csv-parse'
import { EngineError } from '../../../engine/errors.ts'
import { decodeFile, malformedRow } from './decode.ts'

/** CSV with a header line. All values are strings; a missing value is the empty string. */
export async function* readCsv(path: string): AsyncGenerator<{ value: unknown; place: string }> {
  const rows = parse({ columns: (header: string[]) => checkHeader(path, header), skip_empty_lines: true })
  pipeline(Readable.from(decodeFile(path)), rows, () => {}) // errors also end the iteration below
  let number = 0
  try {
    for await (const value of rows) {
      number++
      yield { value, place: `row ${number}` }
    }
  } catch (cause) {
    if (cause instanceof EngineError || !(cause instanceof CsvError)) throw cause
    throw malformedRow(path, `line ${cause.lines}`, `not valid CSV (${cause.message})`, cause)
  }
}

function checkHeader(path: string, header: string[]): string[] {
  const twice = header.find((name, index) => header.indexOf(name) !== index)
  if (twice !== undefined)
    throw malformedRow(path, 'line 1', `the header names ${JSON.stringify(twice)} twice`)
  return header
}
