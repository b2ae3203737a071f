import { isJsonObject } from '../../text/tokenizer-files.ts'
import { boundsOf, hasFreeNames, typesOf } from './check-together.ts'
import { numberRange } from './number-range.ts'
import { patternGrammar } from './pattern.ts'
import type { Schema } from './schema.ts'

/** A schema that the library keeps to, and what is to be put into its grammar. */
export interface NarrowedSchema {
  schema: Schema | boolean
  /** Expressions (EBNF) that take the place of constants, by the constant's text. */
  parts: ReadonlyMap<string, string>
}

const MAPS = ['properties', 'patternProperties', '$defs', 'definitions']
const LISTS = ['anyOf', 'oneOf', 'allOf', 'prefixItems']
const SCHEMAS = [
  'items',
  'additionalProperties',
  'propertyNames',
  'unevaluatedItems',
  'unevaluatedProperties',
]
const CHOICES = ['anyOf', 'oneOf']

/**
 * Rewrites a checked schema so that what the library makes of it fits the schema. Patterns and bounds of numbers become
 * constants, to be replaced in the grammar by expressions made here. Beside declared properties no others are added, since the
 * library would let their names come again with any value. Arrays without a word about their items hold anything.
 */
export function narrowSchema(schema: Schema): NarrowedSchema {
  const text = JSON.stringify(schema)
  let mark = '@'
  while (text.includes(mark)) mark += '@'
  const parts = new Map<string, string>()
  const place = (expression: string): Schema => {
    const constant = `${mark}${parts.size}${mark}`
    parts.set(constant, expression)
    return { const: constant }
  }
  return { schema: rewrite(schema, place), parts }
}

type Place = (expression: string) => Schema

function rewrite(schema: unknown, place: Place): Schema | boolean {
  if (!isJsonObject(schema)) return schema as boolean
  const types = typesOf(schema)
  const bounds = boundsOf(schema)
  if (types.length > 1 && (bounds || schema.pattern !== undefined)) {
    return { anyOf: types.map((type) => rewrite(onlyOf(schema, type), place)) }
  }
  if (typeof schema.pattern === 'string') return place(patternGrammar(schema.pattern, 'pattern'))
  if (bounds) return place(numberRange(bounds, types[0] === 'integer')!)
  return inside(completed(schema), place)
}

/** What a schema of several types says of one of them. */
function onlyOf(schema: Schema, type: string): Schema {
  const { pattern, minimum, maximum, exclusiveMinimum, exclusiveMaximum, ...others } = schema
  if (type === 'string') return { ...others, type, ...(pattern === undefined ? {} : { pattern }) }
  if (type !== 'number' && type !== 'integer') return { ...others, type }
  const bounds = { minimum, maximum, exclusiveMinimum, exclusiveMaximum }
  return {
    ...others,
    type,
    ...Object.fromEntries(Object.entries(bounds).filter(([, value]) => value !== undefined)),
  }
}

function completed(schema: Schema): Schema {
  const { type, properties, additionalProperties, required = [] } = schema
  const changes: Record<string, unknown> = {}
  const missing = (required as string[]).filter((name) => !Object.hasOwn(properties ?? {}, name))
  if (properties !== undefined || missing.length > 0) {
    const other = additionalProperties ?? true
    const added = Object.fromEntries(missing.map((name) => [name, other]))
    changes.properties = { ...(properties ?? {}), ...added }
    changes.additionalProperties = false
    changes.unevaluatedProperties = undefined
  }
  if (hasFreeNames(schema)) changes.propertyNames = undefined
  const isArray = Array.isArray(type) ? type.includes('array') : type === 'array'
  const saysItems = ['items', 'prefixItems', 'unevaluatedItems'].some((key) => key in schema)
  if (isArray && !saysItems) changes.items = true
  // A type beside choices is a type of each of them.
  const choice = CHOICES.find((key) => key in schema)
  if (choice && type !== undefined) {
    const typed = (one: unknown) => (isJsonObject(one) && !('type' in one) ? { ...one, type } : one)
    changes[choice] = (schema[choice] as unknown[]).map(typed)
    changes.type = undefined
  }
  return Object.fromEntries(
    Object.entries({ ...schema, ...changes }).filter(([, value]) => value !== undefined),
  )
}

function inside(schema: Schema, place: Place): Schema {
  return Object.fromEntries(
    Object.entries(schema).map(([key, value]) => {
      if (MAPS.includes(key)) {
        const named = Object.entries(value as object).map(([name, one]) => [name, rewrite(one, place)])
        return [key, Object.fromEntries(named)]
      }
      if (LISTS.includes(key)) return [key, (value as unknown[]).map((one) => rewrite(one, place))]
      // Names have a rule of their own in the library, which has no place for constants.
      if (SCHEMAS.includes(key) && key !== 'propertyNames') return [key, rewrite(value, place)]
      return [key, value]
    }),
  )
}
