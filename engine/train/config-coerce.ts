import { z } from 'zod'

/** Reads text as the field's type where that is possible; what doesn't fit is left for the schema to refuse. */
export function coerce(schema: z.ZodType, value: unknown): unknown {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional) {
    return coerce(schema.unwrap() as z.ZodType, value)
  }
  if (schema instanceof z.ZodUnion) {
    if (schema.options.some((option) => option instanceof z.ZodBoolean)) return coerceBoolean(value)
    if (typeof value === 'string' && EXPRESSION.test(value)) return value
    const list = toList(value)
    return Array.isArray(list) && list.length === 1 && list[0] === 'all' ? 'all' : list
  }
  if (schema instanceof z.ZodRecord) return coerceJson(value)
  if (schema instanceof z.ZodNumber) return coerceNumber(value)
  if (schema instanceof z.ZodBoolean) return coerceBoolean(value)
  if (schema instanceof z.ZodArray) return coerceList(schema, value)
  if (schema instanceof z.ZodLiteral)
    return coerceScalar(Array.isArray(value) && value.length === 1 ? value[0] : value)
  return value
}

/** What names of modules do not hold: text with one of these is a regular expression. */
const EXPRESSION = /[\\*+?()[\]{}|^$]/

function coerceList(schema: z.ZodArray, value: unknown): unknown {
  const list = toList(typeof value === 'number' ? [value] : value)
  return Array.isArray(list) && schema.element instanceof z.ZodNumber ? list.map(coerceNumber) : list
}

function coerceJson(value: unknown): unknown {
  if (typeof value !== 'string') return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

/** Text as the number or the boolean that it spells. */
export function coerceScalar(value: unknown): unknown {
  const number = coerceNumber(value)
  return number === value ? coerceBoolean(value) : number
}

function coerceNumber(value: unknown): unknown {
  if (typeof value !== 'string' || !/^\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?\s*$/i.test(value)) return value
  return Number(value)
}

function coerceBoolean(value: unknown): unknown {
  if (typeof value !== 'string') return value
  return BOOLEANS.get(value.trim().toLowerCase()) ?? value
}

/** The words that YAML 1.1, which LLaMA-Factory's files are read as, has for booleans. */
const BOOLEANS: ReadonlyMap<string, boolean> = new Map([
  ...['true', 'yes', 'on'].map((word) => [word, true] as const),
  ...['false', 'no', 'off'].map((word) => [word, false] as const),
])

export function toList(value: unknown): unknown {
  if (typeof value !== 'string') return value
  return value
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
}
