import { relative } from 'node:path'

/** Writes a result: what another program may read. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** Writes what accompanies a result: progress, warnings, hints. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** A path as the user would type it from here. */
export function shownPath(path: string): string {
  const short = relative(process.cwd(), path)
  return short === '' ? '.' : short.startsWith('..') ? path : short
}
