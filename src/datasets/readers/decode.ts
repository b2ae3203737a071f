import { createReadStream } from 'node:fs'
import { basename } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'

/**
 * A file's text in pieces, without its byte order mark.
 * @throws EngineError `malformed_row` when it is not UTF-8, naming the line.
 */
export async function* decodeFile(path: string): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let line = 1
  const decode = (bytes?: Uint8Array) => {
    try {
      return bytes === undefined ? decoder.decode() : decoder.decode(bytes, { stream: true })
    } catch (cause) {
      throw malformedRow(path, `near line ${line}`, 'the file is not UTF-8', cause)
    }
  }
  for await (const bytes of createReadStream(path) as AsyncIterable<Uint8Array>) {
    const text = decode(bytes)
    line += text.split('\n').length - 1
    if (text !== '') yield text
  }
  const rest = decode()
  if (rest !== '') yield rest
}

/** A file's lines without their line ends (LF or CRLF only: U+2028 may stand inside a JSON string), numbered from 1. */
export async function* readLines(path: string): AsyncGenerator<{ text: string; number: number }> {
  let number = 0
  let pending: string[] = []
  for await (const piece of decodeFile(path)) {
    const [first, ...others] = piece.split('\n')
    pending.push(first!)
    for (const next of others) {
      yield { text: pending.join('').replace(/\r$/, ''), number: ++number }
      pending = [next]
    }
  }
  const last = pending.join('')
  if (last !== '') yield { text: last.replace(/\r$/, ''), number: ++number }
}

/** The error for a row that a reader cannot read. */
export function malformedRow(path: string, place: string, reason: string, cause?: unknown): EngineError {
  return new EngineError('invalid', 'malformed_row', `${basename(path)} ${place}: ${reason}.`, { cause })
}
