import fc from 'fast-check'

export interface JsonSchema {
  $ref?: string
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  anyOf?: JsonSchema[]
  oneOf?: JsonSchema[]
  allOf?: JsonSchema[]
  properties?: Record<string, JsonSchema>
  required?: string[]
  items?: JsonSchema
  additionalProperties?: boolean | JsonSchema
  minimum?: number
  maximum?: number
  pattern?: string
}

const DEPTH = 4

/** Values that mostly fit a schema of the OpenAPI document: now and then a part of them is something else. */
export function nearly(schema: JsonSchema, components: Record<string, JsonSchema>): fc.Arbitrary<unknown> {
  return build(schema, components, 0)
}

function build(
  schema: JsonSchema,
  components: Record<string, JsonSchema>,
  depth: number,
): fc.Arbitrary<unknown> {
  const fitting = matching(schema, components, depth)
  return fc.oneof({ arbitrary: fitting, weight: 24 }, { arbitrary: anything, weight: 1 })
}

const anything: fc.Arbitrary<unknown> = fc.oneof(
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom<unknown>('', '\u0000', '\ud800', -1, 0, 1e308, -1e308, 2 ** 53, 1.5, null, [], {}, [[]]),
  fc.string({ maxLength: 400, unit: 'binary' }),
)

function matching(
  schema: JsonSchema,
  components: Record<string, JsonSchema>,
  depth: number,
): fc.Arbitrary<unknown> {
  if (schema.$ref) return build(components[schema.$ref.split('/').at(-1)!] ?? {}, components, depth)
  if (schema.const !== undefined) return fc.constant(schema.const)
  if (schema.enum) return fc.constantFrom(...schema.enum)
  const branches = schema.anyOf ?? schema.oneOf
  if (branches) return fc.oneof(...branches.map((branch) => build(branch, components, depth)))
  const [first] = schema.allOf ?? []
  if (first) return build(first, components, depth)
  const types = Array.isArray(schema.type) ? schema.type : [schema.type]
  return fc.oneof(...types.map((type) => ofType(type, schema, components, depth)))
}

function ofType(
  type: string | undefined,
  schema: JsonSchema,
  components: Record<string, JsonSchema>,
  depth: number,
): fc.Arbitrary<unknown> {
  const { minimum: min = -10, maximum = 10 } = schema
  const max = Math.max(min, Math.min(maximum, min + 1000))
  switch (type) {
    case 'string':
      return schema.pattern ? fc.stringMatching(new RegExp(schema.pattern)) : fc.string({ maxLength: 12 })
    case 'integer':
      return fc.integer({ min: Math.ceil(min), max: Math.ceil(max) })
    case 'number':
      return fc.double({ min, max, noNaN: true })
    case 'boolean':
      return fc.boolean()
    case 'null':
      return fc.constant(null)
    case 'array':
      return depth >= DEPTH
        ? fc.constant([])
        : fc.array(build(schema.items ?? {}, components, depth + 1), { maxLength: 4 })
    case 'object':
      return depth >= DEPTH ? fc.constant({}) : objectOf(schema, components, depth)
    default:
      return fc.jsonValue({ maxDepth: 2 })
  }
}

function objectOf(
  { properties = {}, required = [], additionalProperties }: JsonSchema,
  components: Record<string, JsonSchema>,
  depth: number,
): fc.Arbitrary<unknown> {
  const known = Object.fromEntries(
    Object.entries(properties).map(([name, value]) => [name, build(value, components, depth + 1)]),
  )
  const more = typeof additionalProperties === 'object' ? additionalProperties : {}
  const extra =
    additionalProperties === false
      ? fc.constant({})
      : fc.dictionary(fc.string({ maxLength: 8 }), build(more, components, depth + 1), { maxKeys: 2 })
  const named = fc.record(known, { requiredKeys: required.filter((name) => name in known) })
  return fc.tuple(named, extra).map(([one, other]) => ({ ...other, ...one }))
}
