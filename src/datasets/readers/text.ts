import { readLines } from './decode.ts'

/** Plain text: each line that is not blank is a row with the column `text`. */
export async function* readText(path: string): AsyncGenerator<{ value: unknown; place: string }> {
  for await (const { text, number } of readLines(path)) {
    if (text.trim() !== '') yield { value: { text }, place: `line ${number}` }
  }
}
