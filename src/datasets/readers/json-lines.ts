import { malformedRow, readLines } from './decode.ts'

/** JSON Lines: one JSON value a line; blank lines are passed over. */
export async function* readJsonLines(path: string): AsyncGenerator<{ value: unknown; place: string }> {
  for await (const { text, number } of readLines(path)) {
    if (text.trim() === '') continue
    const place = `line ${number}`
    let value: unknown
    try {
      value = JSON.parse(text)
    } catch (cause) {
      throw malformedRow(path, place, `not valid JSON (${(cause as Error).message})`, cause)
    }
    yield { value, place }
  }
}
