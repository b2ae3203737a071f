import { isJsonObject } from '../../text/tokenizer-files.ts'
import { type NumberBounds, numberRange } from './number-range.ts'
import { invalidSchema, type Schema } from './schema.ts'

const BOUNDS = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'] as const
const LENGTHS = ['minLength', 'maxLength']
/** Formats of strings that the library keeps to; it takes others for any string. */
const FORMATS = [
  ...[
    'date',
    'time',
    'date-time',
    'duration',
    'email',
    'hostname',
    'ipv4',
    'ipv6',
    'uuid',
    'uri',
    'uri-reference',
  ],
  ...['uri-template', 'json-pointer', 'relative-json-pointer'],
]

/** Keywords beside which the library keeps to nothing else, with what may stand beside them. */
const ALONE: Readonly<Record<string, readonly string[]>> = {
  $ref: [],
  anyOf: ['type'],
  oneOf: ['type'],
  allOf: [],
  enum: ['type'],
  const: ['type'],
  // Where both are there the pattern is kept to, and the format only describes.
  pattern: ['type', 'format'],
  format: ['type', 'pattern'],
  patternProperties: ['type', 'additionalProperties', 'minProperties', 'maxProperties'],
  propertyNames: ['type', 'minProperties', 'maxProperties'],
}

/** Keywords that say something of one type alone, and leave every other value free. */
const OF_TYPE: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries([...LENGTHS, 'pattern', 'format'].map((key) => [key, ['string']])),
  ...Object.fromEntries(BOUNDS.map((key) => [key, ['number', 'integer']])),
}

/**
 * Refuses keywords that the library does not keep to where others stand beside them, and what contradicts itself.
 *
 * @param enforced whether a keyword is one of those that say what fits.
 * @throws EngineError invalid 'invalid_schema'.
 */
export function checkTogether(schema: Schema, param: string, enforced: (key: string) => boolean): void {
  const keys = Object.keys(schema).filter((key) => enforced(key) && !saysNothing(schema, key))
  for (const [key, beside] of Object.entries(ALONE)) {
    const other = keys.includes(key) && keys.find((one) => one !== key && !beside.includes(one))
    if (other)
      throw invalidSchema(`${param}.${other}`, `cannot be enforced beside ${key}; leave one of them out`)
  }
  for (const key of keys) {
    const types = OF_TYPE[key]
    if (types && !typesOf(schema).some((type) => types.includes(type))) {
      throw invalidSchema(`${param}.${key}`, `needs the type ${types.join(' or ')} beside it`)
    }
  }
  checkValues(schema, param)
  checkBounds(schema, param)
  checkRequired(schema, param)
  checkNames(schema, param)
  if (schema.format !== undefined && schema.pattern === undefined && !FORMATS.includes(`${schema.format}`)) {
    const known = FORMATS.join(', ')
    throw invalidSchema(
      `${param}.format`,
      `is ${JSON.stringify(schema.format)}, which cannot be enforced; ${known} can`,
    )
  }
}

function saysNothing(schema: Schema, key: string): boolean {
  if (key === '$defs' || key === 'definitions') return true
  return key === 'propertyNames' && hasFreeNames(schema)
}

/** Whether propertyNames say only that names are strings. */
export function hasFreeNames({ propertyNames: names }: Schema): boolean {
  return names === true || (isJsonObject(names) && Object.keys(names).every((key) => key === 'type'))
}

/** The types that a schema allows; none where it does not say. */
export function typesOf({ type }: Schema): readonly string[] {
  return Array.isArray(type) ? type : typeof type === 'string' ? [type] : []
}

function checkValues(schema: Schema, param: string): void {
  const types = typesOf(schema)
  if ('type' in schema && types.length === 0) throw invalidSchema(`${param}.type`, 'names no type')
  const values = [...((schema.enum as unknown[]) ?? []), ...('const' in schema ? [schema.const] : [])]
  const stray = values.find((value) => types.length > 0 && !types.some((type) => isOfType(value, type)))
  if (stray !== undefined)
    throw invalidSchema(param, `allows ${JSON.stringify(stray)}, which is not of its type`)
}

function isOfType(value: unknown, type: string): boolean {
  if (type === 'null') return value === null
  if (type === 'array') return Array.isArray(value)
  if (type === 'object') return isJsonObject(value)
  if (type === 'integer') return Number.isInteger(value)
  return typeof value === type
}

/** A schema's bounds on numbers; undefined where it has none. */
export function boundsOf(schema: Schema): NumberBounds | undefined {
  const bounds = BOUNDS.filter((key) => schema[key] !== undefined).map((key) => [key, schema[key]])
  return bounds.length === 0 ? undefined : Object.fromEntries(bounds)
}

function checkBounds(schema: Schema, param: string): void {
  const bounds = boundsOf(schema)
  if (bounds === undefined) return
  for (const [key, value] of Object.entries(bounds)) {
    if (typeof value !== 'number') throw invalidSchema(`${param}.${key}`, 'must be a number')
    if (Math.abs(value) > Number.MAX_SAFE_INTEGER)
      throw invalidSchema(`${param}.${key}`, `is ${value}; at most 2^53 - 1 can be enforced`)
  }
  const whole = !typesOf(schema).includes('number')
  if (numberRange(bounds, whole) === undefined) {
    throw invalidSchema(
      param,
      `has bounds between which no ${whole ? 'whole number' : 'number of few decimals'} lies`,
    )
  }
}

function checkRequired({ properties, required, additionalProperties }: Schema, param: string): void {
  const missing = ((required as string[]) ?? []).find((name) => !Object.hasOwn(properties ?? {}, name))
  if (missing !== undefined && additionalProperties === false) {
    throw invalidSchema(
      `${param}.required`,
      `names ${JSON.stringify(missing)}, which is not among the properties`,
    )
  }
}

/** The library does not write what JSON escapes in the names of properties. */
function checkNames({ properties, required }: Schema, param: string): void {
  const names = [...Object.keys(properties ?? {}), ...((required as string[]) ?? [])]
  const escaped = names.find((name) => JSON.stringify(name) !== `"${name}"`)
  if (escaped === undefined) return
  throw invalidSchema(
    `${param}.properties`,
    `has the name ${JSON.stringify(escaped)}; names with characters that JSON escapes cannot be enforced`,
  )
}
