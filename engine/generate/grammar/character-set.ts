/** Code points, as ranges in ascending order without overlap. */
export type CharacterSet = readonly (readonly [from: number, to: number])[]

const LAST = 0x10ffff
/** The two-character escapes of JSON strings, by code point. */
const JSON_ESCAPES: Readonly<Record<number, string>> = {
  8: 'b',
  9: 't',
  10: 'n',
  12: 'f',
  13: 'r',
  34: '"',
  92: '\\',
}
/** Characters beyond ASCII of a set that are written out one by one. */
const MAX_WRITTEN_OUT = 256

/** Whether a set has one character alone. */
export const isSingle = (set: CharacterSet) => set.length === 1 && set[0]![0] === set[0]![1]

/** Ranges in any order, as a set. */
export function normalized(ranges: readonly (readonly [number, number])[]): CharacterSet {
  const merged: [number, number][] = []
  for (const [from, to] of ranges.toSorted((a, b) => a[0] - b[0])) {
    const last = merged.at(-1)
    if (last && from <= last[1] + 1) last[1] = Math.max(last[1], to)
    else merged.push([from, to])
  }
  return merged
}

/** Every other character. */
export function complement(set: CharacterSet): CharacterSet {
  const found: [number, number][] = []
  let next = 0
  for (const [from, to] of set) {
    if (from > next) found.push([next, from - 1])
    next = to + 1
  }
  if (next <= LAST) found.push([next, LAST])
  return found
}

const hex = (code: number, digits: number) => code.toString(16).padStart(digits, '0')

/**
 * The characters of a set as JSON strings hold them: alternatives of a grammar (xgrammar's EBNF), none where they cannot be
 * told apart from others.
 */
export function jsonCharacters(set: CharacterSet): string[] {
  return [...asciiCharacters(set), ...otherCharacters(set)]
}

/** The plain ones as one class, the others as JSON's escapes: rare controls only where there is nothing else. */
function asciiCharacters(set: CharacterSet): string[] {
  const codes = Array.from({ length: 0x80 }, (_, code) => code).filter((code) =>
    set.some(([from, to]) => code >= from && code <= to),
  )
  const plain = codes.filter((code) => code >= 0x20 && code !== 34 && code !== 92)
  const ranges = normalized(plain.map((code) => [code, code] as const))
  const members = ranges.map(([from, to]) => `\\x${hex(from, 2)}-\\x${hex(to, 2)}`)
  const letters = codes.flatMap((code) => JSON_ESCAPES[code] ?? [])
  const classes = [
    ...(members.length > 0 ? [`[${members.join('')}]`] : []),
    ...(letters.length > 0
      ? [`"\\\\" [${letters.map((letter) => `\\x${hex(letter.codePointAt(0)!, 2)}`).join('')}]`]
      : []),
  ]
  return classes.length > 0 ? classes : codes.map((code) => `"\\\\u00${hex(code, 2)}"`)
}

/** All characters beyond ASCII, or a few; where a set holds many, but not all, none. */
function otherCharacters(set: CharacterSet): string[] {
  const beyond = set
    .map(([from, to]): [number, number] => [Math.max(from, 0x80), to])
    .filter(([from, to]) => from <= to)
  if (beyond.length === 1 && beyond[0]![0] === 0x80 && beyond[0]![1] === LAST) return ['[^\\x00-\\x7f]']
  const count = beyond.reduce((sum, [from, to]) => sum + to - from + 1, 0)
  if (count > MAX_WRITTEN_OUT) return []
  return beyond.flatMap(([from, to]) =>
    Array.from({ length: to - from + 1 }, (_, at) => `"\\U${hex(from + at, 8)}"`),
  )
}
