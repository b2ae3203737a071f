import type { z } from 'zod'
import { messageOf } from '../errors.ts'
import type { trainConfigSchema } from './config-schema.ts'
import { readOptimArgs } from './optimizers/optim-args.ts'
import { scheduleKwargs } from './schedule.ts'

type Parsed = z.output<typeof trainConfigSchema>

/** What a method or an optimizer is asked for that it cannot do together: the field, and why. */
export function methodContradictions(config: Parsed): { field: string; message: string }[] {
  const rules = [loraProblems, initializationProblems, layerProblems, optimizerProblems].flatMap((problems) =>
    problems(config),
  )
  return rules.flatMap(([field, applies, message]) => (applies ? [{ field, message }] : []))
}

type Rule = [field: string, applies: boolean, message: string]

/** Fields that only LoRA has. */
const OF_LORA = [
  'use_rslora',
  'use_dora',
  'loraplus_lr_ratio',
  'pissa_init',
  'loftq_init',
  'additional_target',
] as const

function loraProblems(config: Parsed): Rule[] {
  const isLora = config.finetuning_type === 'lora'
  return OF_LORA.map((field) => {
    const isAsked = config[field] !== false && config[field] !== undefined
    return [field, isAsked && !isLora, `\`${field}\` is only valid for LoRA training.`]
  })
}

/** What begins where: with given adapters, or with weights that come of the base. */
function initializationProblems(config: Parsed): Rule[] {
  const adapters = config.adapter_name_or_path ?? []
  const goesOn = adapters.length > 0 && !config.create_new_adapter
  const isQuantized = config.quantization_bit !== undefined
  return [
    [
      'adapter_name_or_path',
      adapters.length > 0 && config.finetuning_type !== 'lora',
      'Adapter is only valid for the LoRA method.',
    ],
    [
      'create_new_adapter',
      isQuantized && adapters.length > 0 && config.create_new_adapter,
      'Cannot create new adapter upon a quantized model.',
    ],
    [
      'adapter_name_or_path',
      isQuantized && adapters.length > 1,
      'Quantized model only accepts a single adapter. Merge them first.',
    ],
    [
      'pissa_init',
      config.pissa_init && goesOn,
      '`pissa_init` begins a new adapter: set `create_new_adapter`, or leave it out to go on with the given one.',
    ],
    [
      'loftq_init',
      config.loftq_init && goesOn,
      '`loftq_init` begins a new adapter: leave it out to go on with the given one.',
    ],
    [
      'loftq_init',
      config.loftq_init && !isQuantized,
      '`loftq_init` needs `quantization_bit`: it makes up for what that loses.',
    ],
    [
      'loftq_init',
      config.loftq_init && config.pissa_init,
      'Cannot use `loftq_init` and `pissa_init` together.',
    ],
    ['pissa_convert', config.pissa_convert && !config.pissa_init, '`pissa_convert` needs `pissa_init`.'],
    [
      'pissa_convert',
      config.pissa_convert && config.use_dora,
      '`pissa_convert` cannot be used with `use_dora`: the magnitudes belong to the base without its principal part.',
    ],
  ]
}

/** Which layers are trained, and how they attend. */
function layerProblems(config: Parsed): Rule[] {
  return [
    [
      'layers_to_transform',
      config.use_llama_pro && config.layers_to_transform !== undefined,
      '`use_llama_pro` chooses the layers itself: leave `layers_to_transform` out.',
    ],
    [
      'use_llama_pro',
      config.use_llama_pro && config.finetuning_type === 'full',
      '`use_llama_pro` is only valid for Freeze or LoRA training.',
    ],
    [
      'use_llama_pro',
      config.use_llama_pro && config.freeze_trainable_layers < 0,
      '`use_llama_pro` needs a positive `freeze_trainable_layers`: the number of blocks that were put in.',
    ],
    [
      'layers_to_transform',
      config.layers_to_transform !== undefined && isExpression(config.lora_target),
      '`layers_to_transform` narrows lists of names; with an expression in `lora_target`, put the layers into it.',
    ],
    [
      'layers_pattern',
      config.layers_pattern !== undefined && config.layers_to_transform === undefined,
      '`layers_pattern` says where the numbers of `layers_to_transform` stand, which is not given.',
    ],
    [
      'shift_attn',
      config.shift_attn && config.neat_packing,
      'Cannot use `shift_attn` and `neat_packing` together: both say who sees whom.',
    ],
  ]
}

/** Whether lora_target is one expression for whole paths. */
function isExpression(target: Parsed['lora_target']): boolean {
  return typeof target === 'string' && target !== 'all'
}

function optimizerProblems(config: Parsed): Rule[] {
  const {
    finetuning_type: type,
    optim,
    use_galore,
    use_badam,
    use_muon,
    lr_scheduler_kwargs: kwargs,
  } = config
  const special = Object.entries({ use_galore, use_badam, use_muon }).filter(([, on]) => on)
  const [first] = special.map(([field]) => field)
  const allowed = scheduleKwargs(config.lr_scheduler_type)
  const unknown = Object.keys(kwargs ?? {}).filter((key) => !allowed.includes(key))
  return [
    [
      use_galore ? 'use_galore' : 'use_badam',
      type === 'lora' && (use_galore || use_badam),
      'Cannot use LoRA with GaLore, APOLLO or BAdam together.',
    ],
    [
      first ?? 'optim',
      special.length > 1,
      `Cannot use ${special.map(([field]) => `\`${field}\``).join(' and ')} together.`,
    ],
    [
      first ?? 'optim',
      special.length > 0 && !optim.startsWith('adamw'),
      `\`${first}\` updates by AdamW inside: leave \`optim\` out.`,
    ],
    ['optim_args', ...optimArgsProblem(config)],
    [
      'lr_scheduler_kwargs',
      unknown.length > 0,
      `\`lr_scheduler_kwargs\`: ${config.lr_scheduler_type} takes ${allowed.join(', ') || 'none'}, not ${unknown.join(', ')}.`,
    ],
    [
      'lr_scheduler_kwargs',
      config.lr_scheduler_type === 'cosine_with_min_lr' &&
        kwargs?.min_lr === undefined &&
        kwargs?.min_lr_rate === undefined,
      '`lr_scheduler_type` cosine_with_min_lr needs min_lr or min_lr_rate in `lr_scheduler_kwargs`.',
    ],
  ]
}

function optimArgsProblem({ optim, optim_args: text }: Parsed): [applies: boolean, message: string] {
  try {
    const { nesterov, momentum, dampening } = readOptimArgs(optim, text)
    if (!nesterov || (Number(momentum) > 0 && !dampening)) return [false, '']
    return [true, '`optim_args`: nesterov needs a momentum and no dampening.']
  } catch (error) {
    return [true, messageOf(error)]
  }
}
