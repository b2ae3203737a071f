import { pipeline, Readable } from 'node:stream'
import streamArray from 'stream-json/streamers/stream-array.js'
import { EngineError } from '../../../engine/errors.ts'
import { decodeFile, malformedRow } from './decode.ts'
import { readJsonLines } from './json-lines.ts'

/**
 * A JSON array of rows, streamed. A file that starts with `{` is read as JSON Lines, which LLaMA-Factory accepts under
 * this extension too.
 */
export async function* readJson(path: string): AsyncGenerator<{ value: unknown; place: string }> {
  const start = await firstCharacter(path)
  if (start === '{') {
    yield* readJsonLines(path)
    return
  }
  if (start !== '[') throw malformedRow(path, 'row 1', 'the file must hold a JSON array of rows')

  const rows = streamArray.withParserAsStream()
  pipeline(Readable.from(decodeFile(path)), rows, () => {}) // errors also end the iteration below
  let number = 0
  try {
    for await (const { value } of rows as AsyncIterable<{ value: unknown }>) {
      number++
      yield { value, place: `row ${number}` }
    }
  } catch (cause) {
    if (cause instanceof EngineError) throw cause
    throw malformedRow(path, `row ${number + 1}`, `not valid JSON (${(cause as Error).message})`, cause)
  }
}

async function firstCharacter(path: string): Promise<string | undefined> {
  for await (const piece of decodeFile(path)) {
    const text = piece.trimStart()
    if (text !== '') return text[0]
  }
  return undefined
}
