import { stringify } from 'yaml'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { coerce, coerceScalar, toList } from './config-coerce.ts'
import { contradictions, hasEvaluation } from './config-contradictions.ts'
import { IGNORED_FIELDS, INSTEAD, UNSUPPORTED_FIELDS, UNSUPPORTED_VALUES } from './config-known.ts'
import { clip, invalid, json, type Problem, show, unsupported } from './config-problem.ts'
import { type FieldName, type TrainConfig, trainConfigSchema } from './config-schema.ts'

export { type TrainConfig, trainConfigSchema } from './config-schema.ts'

const FIELDS = Object.keys(trainConfigSchema.shape) as FieldName[]

/**
 * Checks a training configuration as YAML, JSON or the command line has it and fills in the defaults. `model` is accepted
 * for `model_name_or_path`; null counts as left out; '1e-4', 'true' and 'a,b' are read as number, boolean and list.
 *
 * @throws EngineError `invalid` or `unsupported` that lists every problem at once; `param` is the first one's field.
 */
export function parseTrainConfig(input: Record<string, unknown>): TrainConfig {
  const problems: Problem[] = []
  const given = withCanonicalNames(input, problems)
  const known: Record<string, unknown> = {}
  for (const [field, value] of Object.entries(given)) {
    const problem = refusal(field, value)
    if (problem) problems.push(problem)
    else if (isField(field)) known[field] = coerce(trainConfigSchema.shape[field], value)
  }
  const refused = new Set(problems.map((problem) => problem.field))
  const parsed = trainConfigSchema.safeParse(known)
  for (const issue of parsed.error?.issues ?? []) {
    const field = String(issue.path[0])
    if (!refused.has(field)) problems.push(fromIssue(field, issue, known[field]))
  }
  if (parsed.data) problems.push(...contradictions(parsed.data))
  if (problems.length > 0 || !parsed.data) throw combined(problems)
  return resolve(parsed.data)
}

/** The fields of `input` that are accepted for LLaMA-Factory's sake and change nothing here. */
export function ignoredFields(input: Record<string, unknown>): string[] {
  return Object.keys(input).filter((field) => IGNORED_FIELDS.has(field) && input[field] != null)
}

/** The whole resolved configuration as a YAML file that LLaMA-Factory reads too. */
export function toYaml(config: TrainConfig): string {
  const entries = FIELDS.flatMap((field) => {
    const value = config[field]
    return value === undefined ? [] : [[field, Array.isArray(value) ? value.join(',') : value] as const]
  })
  // PyYAML reads YAML 1.1, where no and on are booleans, and exponents stand only behind a decimal point.
  const text = stringify(Object.fromEntries(entries), { version: '1.1', lineWidth: 0 })
  return text.replace(/^( *\S+: -?\d+)(e[+-]\d+)$/gm, '$1.0$2')
}

/** The equivalent command line: every field whose value is not what it would be if left out. */
export function toCommand(config: TrainConfig): string {
  const wanted = canonical(config)
  const rest: Record<string, unknown> = { ...config }
  const words = ['anneal', 'train']
  for (const field of FIELDS) {
    const value = rest[field]
    if (value === undefined) continue
    delete rest[field]
    if (parsesTo(rest, wanted)) continue
    rest[field] = value
    words.push(shellWord(`${field}=${asText(value)}`))
  }
  return words.join(' ')
}

function asText(value: unknown): string {
  if (Array.isArray(value)) return value.join(',')
  return typeof value === 'object' ? JSON.stringify(value) : String(value)
}

function parsesTo(input: Record<string, unknown>, wanted: string): boolean {
  try {
    return canonical(parseTrainConfig(input)) === wanted
  } catch {
    return false
  }
}

function canonical(config: TrainConfig): string {
  return JSON.stringify(FIELDS.map((field) => config[field] ?? null))
}

function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}

function isField(name: string): name is FieldName {
  return Object.hasOwn(trainConfigSchema.shape, name)
}

function withCanonicalNames(input: Record<string, unknown>, problems: Problem[]): Record<string, unknown> {
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value != null))
  if (!Object.hasOwn(given, 'model')) return given
  const { model, ...rest } = given
  if (Object.hasOwn(rest, 'model_name_or_path') && rest.model_name_or_path !== model) {
    const both = `${show(model)} and ${show(rest.model_name_or_path)}`
    problems.push(
      invalid('model', `\`model\` and \`model_name_or_path\` name two models: ${both}. Give one.`),
    )
  }
  return { model_name_or_path: model, ...rest }
}

/** Why a field or its value is not taken, before its type is looked at. */
function refusal(field: string, value: unknown): Problem | undefined {
  if (isField(field)) {
    const values: readonly unknown[] = UNSUPPORTED_VALUES[field] ?? []
    const given = field === 'report_to' ? [toList(value)].flat() : [coerceScalar(value)]
    if (!given.some((one) => values.includes(one))) return undefined
    return unsupported(field, value, `Supported: ${describeValues(field)}.`)
  }
  if (IGNORED_FIELDS.has(field)) return undefined
  if (Object.hasOwn(UNSUPPORTED_FIELDS, field)) {
    const inert = UNSUPPORTED_FIELDS[field]!
    const wanted = coerceScalar(value)
    if (inert.some((allowed) => json(allowed) === json(wanted))) return undefined
    const instead = inert.length === 0 ? '' : ` or set it to ${show(inert[0])}`
    return unsupported(field, value, INSTEAD[field] ?? `Leave the field out${instead}.`)
  }
  const nearest = nearestField(field)
  const hint = nearest ? ` Did you mean \`${nearest}\`?` : ''
  return invalid(field, `Unknown field \`${clip(field)}\`.${hint}`)
}

function fromIssue(field: string, issue: z.core.$ZodIssue, value: unknown): Problem {
  if (value === undefined) return invalid(field, missing(field))
  const wanted =
    issue.code === 'invalid_union' ? `expected ${describeValues(field as FieldName)}` : issue.message
  return invalid(field, `\`${field}\`: ${wanted.replace(/^Invalid input: /, '')}; got ${show(value)}.`)
}

function missing(field: string): string {
  if (field === 'dataset') return 'Please specify `dataset` for training.'
  return `Please provide \`${field}\`.`
}

function resolve(config: z.output<typeof trainConfigSchema>): TrainConfig {
  const eval_strategy = config.eval_strategy ?? (config.eval_steps === undefined ? 'no' : 'steps')
  return {
    ...config,
    lora_alpha: config.lora_alpha ?? 2 * config.lora_rank,
    packing: config.neat_packing || (config.packing ?? config.stage === 'pt'),
    gradient_checkpointing: config.gradient_checkpointing ?? opposite(config.disable_gradient_checkpointing),
    disable_gradient_checkpointing: undefined,
    device: config.device ?? (config.use_cpu ? 'cpu' : undefined),
    use_cpu: undefined,
    max_steps: config.max_steps > 0 ? config.max_steps : -1,
    eval_strategy,
    do_eval: eval_strategy === 'steps' || (config.do_eval ?? hasEvaluation(config)),
  }
}

function opposite(value: boolean | undefined): boolean | undefined {
  return value === undefined ? undefined : !value
}

function describeValues(field: FieldName): string {
  let schema: z.ZodType = trainConfigSchema.shape[field]
  while (schema instanceof z.ZodDefault || schema instanceof z.ZodOptional)
    schema = schema.unwrap() as z.ZodType
  if (schema instanceof z.ZodArray) schema = schema.element as z.ZodType
  if (schema instanceof z.ZodEnum) return schema.options.map(show).join(', ')
  if (schema instanceof z.ZodLiteral) return [...schema.values].map(show).join(', ')
  return field === 'lora_target' ? "'all', a list of names or an expression" : 'true, false or a path'
}

function combined(problems: readonly Problem[]): EngineError {
  const [first] = problems
  const kind = problems.every((problem) => problem.kind === 'unsupported') ? 'unsupported' : 'invalid'
  const code = kind === 'unsupported' ? 'unsupported_option' : 'invalid_config'
  const lines = problems.map((problem) => problem.message)
  const message =
    lines.length === 1
      ? lines[0]!
      : `${lines.length} problems in the training configuration:\n- ${lines.join('\n- ')}`
  return new EngineError(kind, code, message, { param: first?.field })
}

/** The known field that is fewest edits away, when that is few enough to be a typing error. */
function nearestField(name: string): string | undefined {
  if (name.length > 64) return undefined
  const known: string[] = ['model', ...FIELDS, ...Object.keys(UNSUPPORTED_FIELDS), ...IGNORED_FIELDS]
  const ranked = known
    .map((field) => ({ field, distance: editDistance(name.toLowerCase().replaceAll('-', '_'), field) }))
    .sort((a, b) => a.distance - b.distance)
  const [best] = ranked
  return best && best.distance <= Math.max(2, 0.45 * name.length) ? best.field : undefined
}

/** Levenshtein's distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const substituted = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next[j] = Math.min(substituted, row[j]! + 1, next[j - 1]! + 1)
    }
    row = next
  }
  return row[b.length]!
}
