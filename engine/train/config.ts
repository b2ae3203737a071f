import { inspect } from 'node:util'
import { stringify } from 'yaml'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { evaluationMetrics } from './best.ts'
import { coerce, coerceScalar, toList } from './config-coerce.ts'
import { IGNORED_FIELDS, UNSUPPORTED_FIELDS, UNSUPPORTED_VALUES } from './config-known.ts'
import { methodContradictions } from './config-method-checks.ts'
import { type FieldName, type TrainConfig, trainConfigSchema } from './config-schema.ts'

export { type TrainConfig, trainConfigSchema } from './config-schema.ts'

interface Problem {
  kind: 'invalid' | 'unsupported'
  field: string
  message: string
}

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
  const text = stringify(Object.fromEntries(entries), { lineWidth: 0 })
  // YAML 1.1, which PyYAML reads, knows exponents only behind a decimal point.
  return text.replace(/^(\w+: \d+)(e[+-]\d+)$/gm, '$1.0$2')
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
    return unsupported(field, value, `Leave the field out${instead}.`)
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

function contradictions(config: z.output<typeof trainConfigSchema>): Problem[] {
  const problems: Problem[] = []
  if (config.eval_dataset && config.val_size > 0) {
    problems.push(invalid('val_size', 'Cannot specify `val_size` if `eval_dataset` is not None.'))
  }
  const asked = config.do_eval || config.eval_strategy === 'steps' || config.eval_steps !== undefined
  if (asked && !hasEvaluation(config)) {
    const field = config.do_eval ? 'do_eval' : config.eval_strategy ? 'eval_strategy' : 'eval_steps'
    problems.push(invalid(field, 'Please make sure eval_dataset be provided or val_size >1e-6.'))
  }
  if (config.mask_history && config.train_on_prompt) {
    problems.push(invalid('mask_history', '`mask_history` is incompatible with `train_on_prompt`.'))
  }
  for (const { field, message } of methodContradictions(config)) problems.push(invalid(field, message))
  problems.push(...stageContradictions(config), ...bestContradictions(config))
  if (config.bf16 && config.fp16) problems.push(invalid('fp16', '`bf16` and `fp16` exclude each other.'))
  problems.push(...memoryContradictions(config))
  return problems
}

/** What looking for the best evaluation needs. */
function bestContradictions(config: z.output<typeof trainConfigSchema>): Problem[] {
  const problems: Problem[] = []
  const asks = ['load_best_model_at_end', 'early_stopping_steps'] as const
  const whileTraining = config.eval_strategy === 'steps' || config.eval_steps !== undefined
  for (const field of asks) {
    if (!config[field] || whileTraining) continue
    problems.push(invalid(field, `\`${field}\` needs evaluations while training: set \`eval_steps\` too.`))
  }
  if (config.load_best_model_at_end && config.save_only_model) {
    problems.push(
      invalid(
        'save_only_model',
        '`load_best_model_at_end` needs whole checkpoints, without `save_only_model`.',
      ),
    )
  }
  const metric = config.metric_for_best_model?.replace(/^eval_/, '')
  const known = evaluationMetrics(config)
  if (metric !== undefined && !known.includes(metric)) {
    problems.push(
      invalid(
        'metric_for_best_model',
        `\`metric_for_best_model\` = ${show(metric)} is not measured here. Measured: ${known.join(', ')}.`,
      ),
    )
  }
  if (config.eval_on_each_dataset && !config.eval_dataset) {
    problems.push(invalid('eval_on_each_dataset', '`eval_on_each_dataset` needs `eval_dataset`.'))
  }
  return problems
}

function stageContradictions(config: z.output<typeof trainConfigSchema>): Problem[] {
  const { stage } = config
  const problems: Problem[] = []
  const onlySft = ['train_on_prompt', 'mask_history'] as const
  for (const field of onlySft) {
    if (config[field] && stage !== 'sft' && stage !== 'pt') {
      problems.push(invalid(field, '`train_on_prompt` or `mask_history` cannot be set as True except SFT.'))
    }
  }
  if (config.predict_with_generate && stage !== 'sft') {
    const message = '`predict_with_generate` cannot be set as True except SFT.'
    problems.push(invalid('predict_with_generate', message))
  } else if (config.predict_with_generate && !config.eval_dataset) {
    const message =
      '`predict_with_generate` needs `eval_dataset`: the questions that the trained model answers.'
    problems.push(invalid('predict_with_generate', message))
  }
  if (config.predict_with_generate && config.compute_accuracy) {
    const message = 'Cannot use `predict_with_generate` and `compute_accuracy` together.'
    problems.push(invalid('predict_with_generate', message))
  }
  if (config.packing && stage !== 'sft' && stage !== 'pt') {
    problems.push(invalid('packing', '`packing` is only valid for the stages sft and pt.'))
  }
  if (config.compute_accuracy && stage !== 'sft' && stage !== 'pt') {
    problems.push(invalid('compute_accuracy', '`compute_accuracy` is only valid for the stages sft and pt.'))
  }
  if (config.dpo_label_smoothing > 0 && config.pref_loss !== 'sigmoid') {
    problems.push(
      invalid('dpo_label_smoothing', '`dpo_label_smoothing` is only valid for sigmoid loss function.'),
    )
  }
  return problems
}

function memoryContradictions(config: z.output<typeof trainConfigSchema>): Problem[] {
  const problems: Problem[] = []
  if (config.quantization_bit !== undefined && config.finetuning_type !== 'lora') {
    problems.push(invalid('quantization_bit', 'Quantization is only compatible with the LoRA method.'))
  }
  if (config.neat_packing && config.stage !== 'sft') {
    problems.push(invalid('neat_packing', '`neat_packing` is only valid for stage sft.'))
  }
  if (config.neat_packing && config.shift_attn) {
    problems.push(
      invalid('neat_packing', '`neat_packing` and `shift_attn` need different masks; choose one.'),
    )
  }
  const { gradient_checkpointing: on, disable_gradient_checkpointing: off } = config
  if (on !== undefined && on === off) {
    const both = '`gradient_checkpointing` and `disable_gradient_checkpointing` say the opposite; give one.'
    problems.push(invalid('disable_gradient_checkpointing', both))
  }
  return problems
}

function hasEvaluation(config: z.output<typeof trainConfigSchema>): boolean {
  return config.eval_dataset !== undefined || config.val_size > 1e-6
}

function resolve(config: z.output<typeof trainConfigSchema>): TrainConfig {
  const eval_strategy = config.eval_strategy ?? (config.eval_steps === undefined ? 'no' : 'steps')
  return {
    ...config,
    lora_alpha: config.lora_alpha ?? 2 * config.lora_rank,
    packing: config.neat_packing || (config.packing ?? config.stage === 'pt'),
    gradient_checkpointing: config.gradient_checkpointing ?? opposite(config.disable_gradient_checkpointing),
    disable_gradient_checkpointing: undefined,
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

function invalid(field: string, message: string): Problem {
  return { kind: 'invalid', field, message }
}

function unsupported(field: string, value: unknown, instead: string): Problem {
  return { kind: 'unsupported', field, message: `\`${field}\` = ${show(value)} is not supported. ${instead}` }
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

function show(value: unknown): string {
  return clip(json(value))
}

/** JSON where there is one: YAML aliases can make a value that contains itself. */
function json(value: unknown): string {
  try {
    return JSON.stringify(value) ?? inspect(value)
  } catch {
    return inspect(value)
  }
}

function clip(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
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
