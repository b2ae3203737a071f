import { none } from 'stream-chain/core'
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

  let number = 0
  try {
    for await (const value of parseElements(path)) {
      number++
      yield { value, place: `row ${number}` }
    }
  } catch (cause) {
    if (cause instanceof EngineError) throw cause
    throw malformedRow(path, `row ${number + 1}`, `not valid JSON (${(cause as Error).message})`, cause)
  }
}

/** What the library's pipeline is, which its declarations do not say; `none` ends the input. */
type Parse = (piece: string | typeof none) => AsyncIterable<{ value: unknown }>

/** The elements of the file's array. Pieces end with a `}`, so that an error comes after all rows before it came out. */
async function* parseElements(path: string): AsyncGenerator<unknown> {
  const parse = streamArray.withParser() as unknown as Parse
  for await (const text of decodeFile(path)) {
    for (const piece of text.split(/(?<=\})/)) {
      for await (const { value } of parse(piece)) yield value
    }
  }
  for await (const { value } of parse(none)) yield value
}

async function firstCharacter(path: string): Promise<string | undefined> {
  for await (const piece of decodeFile(path)) {
    const text = piece.trimStart()
    if (text !== '') return text[0]
  }
  return undefined
}
