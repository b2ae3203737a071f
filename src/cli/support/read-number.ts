import { UsageError } from './failure.ts'

/** A number behind an option. @throws UsageError where it is none or out of range. */
export function readNumber(
  option: string,
  text: string | undefined,
  allows: (value: number) => boolean,
): number | undefined {
  if (text === undefined) return undefined
  const value = text.trim() === '' ? Number.NaN : Number(text)
  if (allows(value)) return value
  throw new UsageError(`${option} does not take ${JSON.stringify(text)}.`)
}
