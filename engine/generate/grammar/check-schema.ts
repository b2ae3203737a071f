import { isJsonObject } from '../../text/tokenizer-files.ts'
import { checkChoices } from './check-choices.ts'
import { checkTogether } from './check-together.ts'
import { checkNamePattern, patternGrammar } from './pattern.ts'
import { invalidSchema, type Schema } from './schema.ts'

/** What one schema may hold. A grammar grows with all of these, some of them multiplied. */
const LIMITS = {
  bytes: 65_536,
  depth: 32,
  /** Objects and arrays in the schema. */
  nodes: 2_000,
  enumValues: 1_000,
  pattern: 256,
  /** maxLength, maxItems and the like; larger ones are refused, not rounded. */
  count: 1_024,
}

/** Keywords that the grammar keeps to. */
const ENFORCED = new Set([
  ...['type', 'properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames'],
  ...['minProperties', 'maxProperties', 'items', 'prefixItems', 'minItems', 'maxItems', 'unevaluatedItems'],
  ...['unevaluatedProperties', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref', '$defs', 'definitions'],
  ...['pattern', 'format', 'minLength', 'maxLength', 'minimum', 'maximum', 'exclusiveMinimum'],
  'exclusiveMaximum',
])
/** Keywords that only describe. */
const DESCRIBING = new Set([
  ...['$schema', '$id', '$comment', 'title', 'description', 'default', 'examples', 'deprecated', 'readOnly'],
  ...['writeOnly', 'contentEncoding', 'contentMediaType', '$anchor', 'strict', 'discriminator'],
])
const COUNTS = new Set(['minLength', 'maxLength', 'minItems', 'maxItems', 'minProperties', 'maxProperties'])
const TYPES = new Set(['object', 'array', 'string', 'number', 'integer', 'boolean', 'null'])
/** Keywords whose value maps names to schemas. */
const MAPS = new Set(['properties', 'patternProperties', '$defs', 'definitions'])
const LISTS = new Set(['anyOf', 'oneOf', 'allOf', 'prefixItems'])
const SCHEMAS = new Set([
  ...['items', 'additionalProperties', 'propertyNames', 'unevaluatedItems', 'unevaluatedProperties'],
])
/** The characters that a pattern may come to when its repetitions are written out. */
const MAX_PATTERN_SIZE = 4_096

/**
 * Refuses what would make a grammar large, slow or untrue, before it is compiled. Keywords that a grammar cannot
 * enforce (`not`, `uniqueItems`, …) are refused rather than ignored.
 * @throws EngineError invalid 'invalid_schema', with `param` naming the place.
 */
export function checkSchema(schema: unknown, param: string): Schema {
  if (!isJsonObject(schema)) throw invalidSchema(param, 'is no JSON Schema object')
  if (Buffer.byteLength(JSON.stringify(schema)) > LIMITS.bytes) {
    throw invalidSchema(param, `is larger than ${LIMITS.bytes} bytes`)
  }
  new Checker(schema).check(schema, param, 0)
  return schema
}

class Checker {
  readonly #root: Schema
  #nodes = 0

  constructor(root: Schema) {
    this.#root = root
  }

  check(schema: unknown, param: string, depth: number): void {
    if (typeof schema === 'boolean') return
    if (!isJsonObject(schema)) throw invalidSchema(param, 'is no schema: an object or a boolean is needed')
    if (depth > LIMITS.depth) throw invalidSchema(param, `is nested more than ${LIMITS.depth} levels deep`)
    if (++this.#nodes > LIMITS.nodes) throw invalidSchema(param, `has more than ${LIMITS.nodes} parts`)
    for (const [key, value] of Object.entries(schema)) this.#keyword(key, value, `${param}.${key}`, depth)
    checkTogether(schema, param, (key) => ENFORCED.has(key))
    checkChoices(schema, param, (one) => this.#follow(one, param))
  }

  #keyword(key: string, value: unknown, param: string, depth: number): void {
    if (DESCRIBING.has(key)) return
    if (!ENFORCED.has(key)) throw invalidSchema(param, 'is a keyword that cannot be enforced; leave it out')
    if (MAPS.has(key)) this.#map(key, value, param, depth)
    else if (LISTS.has(key)) this.#list(value, param, depth)
    else if (key === 'propertyNames') this.#names(value, param, depth)
    else if (SCHEMAS.has(key)) this.check(value, param, depth + 1)
    else if (COUNTS.has(key)) checkCount(value, param)
    else if (key === 'type') checkType(value, param)
    else if (key === 'pattern') checkPattern(value, param)
    else if (key === '$ref') this.#reference(value, param)
    else if (key === 'enum') checkEnum(value, param)
    else if (key === 'required') checkNames(value, param)
  }

  #map(key: string, value: unknown, param: string, depth: number): void {
    if (!isJsonObject(value)) throw invalidSchema(param, 'must be an object')
    for (const [name, schema] of Object.entries(value)) {
      if (key === 'patternProperties') {
        checkPattern(name, param)
        checkNamePattern(name, param)
      }
      this.check(schema, `${param}.${name}`, depth + 1)
    }
  }

  /** Names are strings, whether the schema says so or not. */
  #names(value: unknown, param: string, depth: number): void {
    this.check(isJsonObject(value) ? { type: 'string', ...value } : value, param, depth + 1)
    const { pattern } = isJsonObject(value) ? value : {}
    if (typeof pattern === 'string') checkNamePattern(pattern, `${param}.pattern`)
  }

  #list(value: unknown, param: string, depth: number): void {
    if (!Array.isArray(value) || value.length === 0) throw invalidSchema(param, 'must be a list of schemas')
    if (param.endsWith('.allOf') && value.length > 1) {
      throw invalidSchema(
        param,
        'has several schemas, which cannot be enforced together; merge them into one',
      )
    }
    for (const [index, schema] of value.entries()) this.check(schema, `${param}.${index}`, depth + 1)
  }

  /** What a schema stands for, where it is a reference and nothing else. */
  #follow(schema: unknown, param: string): unknown {
    let at = schema
    // A reference to itself does not end.
    for (let steps = 0; isJsonObject(at) && '$ref' in at && steps < LIMITS.depth; steps++) {
      at = this.#reference(at.$ref, `${param}.$ref`)
    }
    return at
  }

  /** References stay inside the schema and lead somewhere. */
  #reference(value: unknown, param: string): unknown {
    if (value === '#') return this.#root
    if (typeof value !== 'string' || !value.startsWith('#/')) {
      throw invalidSchema(
        param,
        `is ${JSON.stringify(value)}; only references into the schema itself are followed`,
      )
    }
    let at: unknown = this.#root
    for (const step of value.slice(2).split('/')) {
      const key = step.replaceAll('~1', '/').replaceAll('~0', '~')
      at = isJsonObject(at) && Object.hasOwn(at, key) ? at[key] : undefined
    }
    if (!isJsonObject(at) && typeof at !== 'boolean') throw invalidSchema(param, `leads nowhere: ${value}`)
    return at
  }
}

function checkCount(value: unknown, param: string): void {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > LIMITS.count) {
    throw invalidSchema(
      param,
      `is ${JSON.stringify(value)}; a whole number from 0 to ${LIMITS.count} is needed`,
    )
  }
}

function checkType(value: unknown, param: string): void {
  for (const type of Array.isArray(value) ? value : [value]) {
    if (!TYPES.has(type as string)) {
      throw invalidSchema(param, `is ${JSON.stringify(type)}; types are ${[...TYPES].join(', ')}`)
    }
  }
}

function checkEnum(value: unknown, param: string): void {
  if (!Array.isArray(value) || value.length === 0) throw invalidSchema(param, 'must be a list of values')
  if (value.length > LIMITS.enumValues)
    throw invalidSchema(param, `has more than ${LIMITS.enumValues} values`)
}

function checkNames(value: unknown, param: string): void {
  if (!Array.isArray(value) || !value.every((name) => typeof name === 'string')) {
    throw invalidSchema(param, 'must be a list of names')
  }
}

/** A pattern must be a regular expression, short, and without repetitions that multiply to something large. */
function checkPattern(value: unknown, param: string): void {
  if (typeof value !== 'string') throw invalidSchema(param, 'must be a regular expression')
  if (value.length > LIMITS.pattern) throw invalidSchema(param, `is longer than ${LIMITS.pattern} characters`)
  if (!isExpression(value, 'u') && !isExpression(value, ''))
    throw invalidSchema(param, 'is no regular expression')
  const size = writtenOut(value)
  if (size > MAX_PATTERN_SIZE) {
    throw invalidSchema(
      param,
      `comes to ${size} characters with its repetitions; at most ${MAX_PATTERN_SIZE}`,
    )
  }
  patternGrammar(value, param)
}

function isExpression(pattern: string, flags: string): boolean {
  try {
    new RegExp(pattern, flags)
    return true
  } catch {
    return false
  }
}

const PARTS = /\\.|\[(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|[\s\S]/gu

/** Characters of a pattern whose counted repetitions are written out: {a,b} is as long as b times what stands before. */
function writtenOut(pattern: string): number {
  const outer: number[] = []
  let total = 0
  let last = 0
  for (const [part, low, high] of pattern.matchAll(PARTS)) {
    if (part === '(') {
      outer.push(total)
      total = 0
      last = 0
    } else if (part === ')') {
      last = total
      total += outer.pop() ?? 0
    } else if (low !== undefined) total += last * (Math.max(1, Number(high || low)) - 1)
    else {
      last = 1
      total++
    }
  }
  return total
}
