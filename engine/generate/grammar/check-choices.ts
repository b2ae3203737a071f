import { EngineError } from '../../errors.ts'
import { isJsonObject } from '../../text/tokenizer-files.ts'
import { typesOf } from './check-together.ts'
import type { Schema } from './schema.ts'

/** What a schema says beside which a type of its parent can be put. */
const NO_TYPE_BESIDE = ['$ref', 'anyOf', 'oneOf', 'allOf', 'enum', 'const']

/**
 * Refuses choices (anyOf, oneOf) that a grammar cannot keep to: it takes oneOf for anyOf, so schemas that may both fit are
 * refused, and a type beside choices must be one that each of them can have.
 *
 * @param follow what a schema refers to. @throws EngineError invalid 'invalid_schema'.
 */
export function checkChoices(schema: Schema, param: string, follow: (schema: unknown) => unknown): void {
  const { oneOf, anyOf } = schema
  if (Array.isArray(oneOf)) {
    for (const [index, one] of oneOf.entries()) {
      const other = oneOf.findIndex((two, at) => at > index && !areDisjoint(follow(one), follow(two)))
      if (other >= 0) {
        const message = `${param}.oneOf: the schemas ${index} and ${other} may both fit, which cannot be ruled out; use anyOf.`
        throw new EngineError('invalid', 'invalid_schema', message, { param: `${param}.oneOf` })
      }
    }
  }
  const outer = typesOf(schema)
  for (const choice of outer.length > 0 ? ((anyOf ?? oneOf ?? []) as unknown[]) : []) {
    if (isJsonObject(choice) && takesType(choice, outer)) continue
    const message = `${param}.type cannot be enforced beside choices that do not have it; put a type into each of them.`
    throw new EngineError('invalid', 'invalid_schema', message, { param: `${param}.type` })
  }
}

function takesType(choice: Schema, outer: readonly string[]): boolean {
  const own = typesOf(choice)
  return own.length > 0
    ? own.every((type) => outer.includes(type))
    : !NO_TYPE_BESIDE.some((key) => key in choice)
}

/** Whether no value fits both, as far as types, constants and required properties tell. */
function areDisjoint(one: unknown, two: unknown): boolean {
  if (!isJsonObject(one) || !isJsonObject(two)) return one === false || two === false
  const [a, b] = [valuesOf(one), valuesOf(two)]
  if (a && b) return !a.some((value) => b.includes(value))
  const [types, others] = [kindsOf(one), kindsOf(two)]
  if (types.length > 0 && others.length > 0 && !types.some((type) => others.includes(type))) return true
  const names = requiredOf(one).filter((name) => requiredOf(two).includes(name))
  return isObjects(types) && isObjects(others)
    ? names.some((name) => areDisjoint(propertyOf(one, name), propertyOf(two, name)))
    : false
}

const isObjects = (types: readonly string[]) => types.length === 1 && types[0] === 'object'
const requiredOf = ({ required }: Schema) => (required ?? []) as string[]
const propertyOf = ({ properties }: Schema, name: string) =>
  (properties as Schema | undefined)?.[name] ?? true

/** Constants as JSON. */
function valuesOf(schema: Schema): string[] | undefined {
  if ('const' in schema) return [JSON.stringify(schema.const)]
  return Array.isArray(schema.enum) ? schema.enum.map((value) => JSON.stringify(value)) : undefined
}

/** Types, those of constants included; whole numbers are numbers too. */
function kindsOf(schema: Schema): readonly string[] {
  const types = typesOf(schema)
  const said = types.length === 0 && 'properties' in schema ? ['object'] : types
  return said.map((type) => (type === 'integer' ? 'number' : type))
}
