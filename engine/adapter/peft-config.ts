import { readFileSync, statSync } from 'node:fs'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { patternValue } from './targets.ts'

const MAX_CONFIG_BYTES = 4_000_000

/** The fields of adapter_config.json that decide what an adapter computes; all others are kept as they were read. */
const schema = z.looseObject({
  peft_type: z.literal('LORA'),
  task_type: z.literal('CAUSAL_LM').nullable().default('CAUSAL_LM'),
  base_model_name_or_path: z.string().nullable().default(null),
  r: z.int().positive(),
  lora_alpha: z.number().positive(),
  lora_dropout: z.number().min(0).max(1).default(0),
  use_rslora: z.boolean().default(false),
  use_dora: z.boolean().default(false),
  target_modules: z
    .union([z.string(), z.array(z.string())])
    .nullable()
    .default(null),
  layers_to_transform: z
    .union([z.int(), z.array(z.int())])
    .nullable()
    .default(null),
  layers_pattern: z
    .union([z.string(), z.array(z.string())])
    .nullable()
    .default(null),
  rank_pattern: z.record(z.string(), z.int().positive()).nullish(),
  alpha_pattern: z.record(z.string(), z.number().positive()).nullish(),
  modules_to_save: z.array(z.string()).nullable().default(null),
  /** Whether a whole embedding that is trained stays the head of a tied base, too. */
  ensure_weight_tying: z.boolean().nullable().default(false),
})

/** adapter_config.json of a LoRA or DoRA adapter, under PEFT's own field names. */
export type PeftConfig = z.infer<typeof schema>

/** What a config must give; the rest is what PEFT writes for a plain LoRA adapter. */
export type PeftConfigFields = Pick<
  PeftConfig,
  'r' | 'lora_alpha' | 'target_modules' | 'base_model_name_or_path'
> &
  Partial<
    Pick<
      PeftConfig,
      | 'lora_dropout'
      | 'use_rslora'
      | 'use_dora'
      | 'layers_to_transform'
      | 'layers_pattern'
      | 'rank_pattern'
      | 'alpha_pattern'
      | 'modules_to_save'
      | 'ensure_weight_tying'
    >
  >

/** The config of a finished adapter. Only fields that PEFT has had for years, so that older releases load it too. */
export function peftConfig(fields: PeftConfigFields): PeftConfig {
  return {
    alpha_pattern: {},
    auto_mapping: null,
    bias: 'none',
    ensure_weight_tying: false,
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layer_replication: null,
    layers_pattern: null,
    layers_to_transform: null,
    loftq_config: {},
    lora_dropout: 0,
    megatron_config: null,
    megatron_core: 'megatron.core',
    modules_to_save: null,
    peft_type: 'LORA',
    rank_pattern: {},
    revision: null,
    task_type: 'CAUSAL_LM',
    use_dora: false,
    use_rslora: false,
    ...fields,
  }
}

/**
 * Rank of a module's matrices and the factor on B·A: alpha / r, or alpha / sqrt(r) for rank-stabilized LoRA (Kalajdzievski
 * 2023, arXiv 2312.03732). rank_pattern and alpha_pattern give some modules numbers of their own.
 */
export function loraSize(config: PeftConfig, modulePath: string): { rank: number; scale: number } {
  const rank = patternValue(config.rank_pattern, modulePath, config.r)
  const alpha = patternValue(config.alpha_pattern, modulePath, config.lora_alpha)
  return { rank, scale: alpha / (config.use_rslora ? Math.sqrt(rank) : rank) }
}

/**
 * Reads adapter_config.json.
 *
 * @throws EngineError `not_found`, `invalid`, or `unsupported` with the field that asks for something else than LoRA or DoRA.
 */
export function readPeftConfig(path: string): PeftConfig {
  const raw = readJsonObject(path)
  checkSupported(raw, path)
  const parsed = schema.safeParse(raw)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(({ path: field, message }) => `${field.join('.')}: ${message}`)
  throw malformed(path, problems.join('; '))
}

function readJsonObject(path: string): Record<string, unknown> {
  let content: string
  try {
    const { size } = statSync(path)
    if (size > MAX_CONFIG_BYTES)
      throw malformed(path, `it has ${size} bytes; the limit is ${MAX_CONFIG_BYTES}`)
    content = readFileSync(path, 'utf8')
  } catch (cause) {
    if (cause instanceof EngineError) throw cause
    throw new EngineError(
      'not_found',
      'adapter_not_found',
      `${path} cannot be read; an adapter folder needs it`,
      {
        cause,
      },
    )
  }
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(content))
  } catch (cause) {
    throw malformed(path, 'it is not a JSON object', cause)
  }
}

/** Initialisations that leave the base alone. Others (PiSSA, OLoRA, LoftQ ...) subtract from it when PEFT loads them. */
const HARMLESS_INITS: unknown[] = [true, false, 'gaussian', 'eva', 'orthogonal']

/** The plain values of fields that would change what an adapter computes. An absent field has its plain value. */
const PLAIN_VALUES: Record<string, unknown[]> = {
  peft_type: ['LORA'],
  task_type: ['CAUSAL_LM', null],
  bias: ['none'],
  init_lora_weights: HARMLESS_INITS,
}

/** Fields that the schema reads, and those without meaning for a finished adapter: how it was made. */
const WITHOUT_EFFECT = new Set([
  'alpha_pattern',
  'auto_mapping',
  'base_model_name_or_path',
  'corda_config',
  'ensure_weight_tying',
  'eva_config',
  'exclude_modules',
  'inference_mode',
  'layers_pattern',
  'layers_to_transform',
  'loftq_config',
  'lora_alpha',
  'lora_dropout',
  'lora_ga_config',
  'megatron_core',
  'modules_to_save',
  'peft_version',
  'qalora_group_size',
  'r',
  'rank_pattern',
  'revision',
  'runtime_config',
  'target_modules',
  'use_dora',
  'use_rslora',
])

function checkSupported(raw: Record<string, unknown>, path: string): void {
  if (!('peft_type' in raw)) throw malformed(path, 'it has no peft_type')
  for (const [field, value] of Object.entries(raw)) {
    if (WITHOUT_EFFECT.has(field)) continue
    const plain = PLAIN_VALUES[field]
    if (plain ? plain.includes(value) : isEmpty(value)) continue
    const wanted = plain ? ` (supported: ${plain.map((one) => JSON.stringify(one)).join(', ')})` : ''
    throw new EngineError(
      'unsupported',
      'adapter_unsupported',
      `${path}: ${field} is ${JSON.stringify(value)}, which this engine does not do${wanted}; LoRA and DoRA on linear modules are`,
      { param: field },
    )
  }
}

/** Null, false, [] and {}: what PEFT writes for a feature that is off. */
function isEmpty(value: unknown): boolean {
  if (typeof value === 'object' && value !== null) return Object.keys(value).length === 0
  return value === null || value === false
}

function malformed(path: string, problem: string, cause?: unknown): EngineError {
  return new EngineError(
    'invalid',
    'adapter_malformed',
    `${path} is not a valid adapter config: ${problem}`,
    {
      cause,
    },
  )
}
