/** Bounds of a number in a JSON Schema. */
export interface NumberBounds {
  minimum?: number
  maximum?: number
  exclusiveMinimum?: number
  exclusiveMaximum?: number
}

/** Digits before the point where a bound does not ask for more. */
const WHOLE_DIGITS = 15
/** Digits behind the point where a bound does not ask for more, and at most. */
const DECIMALS = 6
const MAX_DECIMALS = 20

/** A number as a whole number of 10^-decimals. */
interface Decimal {
  digits: bigint
  decimals: number
}

/**
 * The JSON numbers within bounds as an expression of a grammar (xgrammar's EBNF): whole numbers, and unless `whole` those
 * with one to six decimals (more where a bound has more), without exponents. The library's own ranges let through what lies
 * outside (1.5 for a maximum of 1).
 *
 * @returns undefined where no such number lies within the bounds.
 */
export function numberRange(bounds: NumberBounds, whole: boolean): string | undefined {
  const given = Object.values(bounds).map(decimalOf)
  const decimals = whole ? 0 : Math.min(MAX_DECIMALS, Math.max(DECIMALS, ...given.map((d) => d.decimals)))
  const largest = Math.max(WHOLE_DIGITS, ...given.map(({ digits }) => String(digits).length + 1))
  const alternatives: string[] = []
  for (let n = 0; n <= decimals; n++) {
    const limit = 10n ** BigInt(largest + n) - 1n
    const low = lowest(bounds, n) ?? -limit
    const high = highest(bounds, n) ?? limit
    // -0 is left out.
    if (low < 0n) {
      const magnitudes = digitStrings(high < 0n ? -high : 1n, -low, n)
      if (magnitudes.length > 0) alternatives.push(`"-" (${magnitudes.join(' | ')})`)
    }
    if (high >= 0n) alternatives.push(...digitStrings(low > 0n ? low : 0n, high, n))
  }
  return alternatives.length === 0 ? undefined : alternatives.join(' | ')
}

function lowest({ minimum, exclusiveMinimum }: NumberBounds, decimals: number): bigint | undefined {
  const bounds = [
    ...(minimum === undefined ? [] : [-floorOf(-minimum, decimals)]),
    ...(exclusiveMinimum === undefined ? [] : [floorOf(exclusiveMinimum, decimals) + 1n]),
  ]
  return bounds.reduce<bigint | undefined>((a, b) => (a === undefined || b > a ? b : a), undefined)
}

function highest({ maximum, exclusiveMaximum }: NumberBounds, decimals: number): bigint | undefined {
  const negated = {
    ...(maximum === undefined ? {} : { minimum: -maximum }),
    ...(exclusiveMaximum === undefined ? {} : { exclusiveMinimum: -exclusiveMaximum }),
  }
  const low = lowest(negated, decimals)
  return low === undefined ? undefined : -low
}

/** The largest whole number of 10^-decimals that is not above a value. */
function floorOf(value: number, decimals: number): bigint {
  const { digits, decimals: own } = decimalOf(value)
  if (own <= decimals) return digits * 10n ** BigInt(decimals - own)
  const divisor = 10n ** BigInt(own - decimals)
  const quotient = digits / divisor
  return digits < 0n && digits % divisor !== 0n ? quotient - 1n : quotient
}

/** The decimal that JavaScript writes a number as. */
function decimalOf(value: number): Decimal {
  const [mantissa = '0', exponent = '0'] = String(value).split('e')
  const [whole = '0', fraction = ''] = mantissa.split('.')
  const shift = fraction.length - Number(exponent)
  const digits = BigInt(`${whole}${fraction}`)
  return shift >= 0 ? { digits, decimals: shift } : { digits: digits * 10n ** BigInt(-shift), decimals: 0 }
}

/** The numbers from `low` to `high`, neither negative, with a point before their last `decimals` digits. */
function digitStrings(low: bigint, high: bigint, decimals: number): string[] {
  const found: string[] = []
  const [shortest, longest] = [decimals + 1, String(high).length]
  for (let length = shortest; length <= Math.max(shortest, longest); length++) {
    const least = length === shortest ? 0n : 10n ** BigInt(length - 1)
    const most = 10n ** BigInt(length) - 1n
    const [from, to] = [low > least ? low : least, high < most ? high : most]
    if (from > to) continue
    const pad = (value: bigint) => String(value).padStart(length, '0')
    found.push(between(pad(from), pad(to), decimals))
  }
  return found
}

/** Digit strings of equal length between two, as nested alternatives. */
function between(from: string, to: string, decimals: number): string {
  const { length } = from
  if (length === 0) return ''
  if (/^0+$/.test(from) && /^9+$/.test(to)) return anyDigits(length, decimals)
  const point = length === decimals ? '"." ' : ''
  const [first, last] = [Number(from[0]), Number(to[0])]
  const then = (digits: string, rest: string) => `${point}${digits} ${rest}`.trim()
  if (first === last) return then(`"${first}"`, between(from.slice(1), to.slice(1), decimals))
  const rest = length - 1
  const all = anyDigits(rest, decimals)
  const alternatives = [then(`"${first}"`, between(from.slice(1), '9'.repeat(rest), decimals))]
  if (last - first > 1) alternatives.push(then(`[${first + 1}-${last - 1}]`, all))
  alternatives.push(then(`"${last}"`, between('0'.repeat(rest), to.slice(1), decimals)))
  return `(${alternatives.join(' | ')})`
}

function anyDigits(length: number, decimals: number): string {
  const digits = (count: number) => (count === 0 ? '' : `[0-9]{${count}}`)
  if (decimals === 0 || length < decimals) return digits(length)
  return `${digits(length - decimals)} "." ${digits(decimals)}`.trim()
}
