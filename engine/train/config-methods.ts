import { z } from 'zod'

const count = z.number().int()
const name = z.string().min(1)
const names = z.array(name).min(1)
const numbersByName = z.record(name, z.number())

/** Fields that say what is trained: the adapter's variants, and the parts of the base. */
export const methodFields = {
  lora_rank: count.min(1).max(4096).default(8).describe("Rank of the adapter's matrices."),
  lora_alpha: count
    .min(1)
    .max(65_536)
    .optional()
    .describe('Scale of the adapter; twice the rank when left out.'),
  lora_dropout: z.number().min(0).lt(1).default(0).describe("Dropout on the adapter's input."),
  lora_target: z
    .union([names, name.max(1000)])
    .default('all')
    .describe("'all' linear layers but lm_head, their names, or one regular expression for whole paths."),
  layers_to_transform: z
    .array(count.min(0))
    .min(1)
    .optional()
    .describe("PEFT's: only these layers get an adapter."),
  layers_pattern: names
    .optional()
    .describe("PEFT's: the module behind whose name the layer's number stands, such as layers."),
  rank_pattern: z
    .record(name, count.min(1).max(4096))
    .optional()
    .describe("PEFT's: ranks of some modules, by the end of their path."),
  alpha_pattern: z
    .record(name, z.number().gt(0))
    .optional()
    .describe("PEFT's: alphas of some modules, by the end of their path."),
  use_rslora: z.boolean().default(false).describe('Scale by alpha / sqrt(rank) instead of alpha / rank.'),
  use_dora: z.boolean().default(false).describe('Learn magnitudes apart from directions (DoRA).'),
  loraplus_lr_ratio: z
    .number()
    .gt(0)
    .max(1e6)
    .optional()
    .describe("How much faster B learns than A (LoRA+); DoRA's magnitudes learn as B does."),
  loraplus_lr_embedding: z
    .number()
    .gt(0)
    .max(10)
    .default(1e-6)
    .describe('Learning rate of adapters on embeddings, which no run here has: it changes nothing.'),

  additional_target: names
    .optional()
    .describe(
      'Modules that are trained as a whole beside the adapter and saved with it, such as embed_tokens.',
    ),
  adapter_name_or_path: names
    .optional()
    .describe(
      'Adapters to start from: all but the last are merged into the base, the last one goes on training.',
    ),
  create_new_adapter: z
    .boolean()
    .default(false)
    .describe('Merge all of adapter_name_or_path and train a new adapter.'),
  pissa_init: z
    .boolean()
    .default(false)
    .describe("Begin with the base's principal directions in the adapter and train over the rest (PiSSA)."),
  pissa_iter: count
    .min(-1)
    .max(1000)
    .default(16)
    .describe('Iterations of the fast decomposition; -1 decomposes exactly, which takes longer.'),
  pissa_convert: z
    .boolean()
    .default(false)
    .describe('At the end, also write a plain adapter of twice the rank over the original base.'),

  loftq_init: z
    .boolean()
    .default(false)
    .describe(
      'Begin with what quantization loses of the base in the adapter (LoftQ); needs quantization_bit.',
    ),
  loftq_iter: count
    .min(1)
    .max(100)
    .default(1)
    .describe("How often LoftQ fits base and adapter to each other, as in PEFT's loftq_config."),

  freeze_trainable_layers: count
    .refine((value) => value !== 0, 'must not be 0')
    .default(2)
    .describe('Layers that finetuning_type freeze trains: the last n, or the first n for -n.'),
  freeze_trainable_modules: names
    .default(['all'])
    .describe('Modules of those layers to train, such as self_attn or mlp; all of them when left out.'),
  freeze_extra_modules: names
    .optional()
    .describe('Modules outside of the layers to train too, such as embed_tokens or norm.'),
  use_llama_pro: z
    .boolean()
    .default(false)
    .describe(
      'Train only the blocks that `anneal expand` has put in, every layers / freeze_trainable_layers.',
    ),

  neftune_noise_alpha: z
    .number()
    .min(0)
    .max(1e6)
    .optional()
    .describe(
      'Noise on the embeddings while training (NEFTune): uniform within alpha / sqrt(tokens x width).',
    ),
  shift_attn: z
    .boolean()
    .default(false)
    .describe('Train with shifted sparse attention (LongLoRA), for models of the llama shape.'),
}

/** Fields that say how the weights are updated. */
export const optimizerFields = {
  lr_scheduler_type: z
    .enum([
      'linear',
      'cosine',
      'cosine_with_restarts',
      'polynomial',
      'constant',
      'constant_with_warmup',
      'inverse_sqrt',
      'cosine_with_min_lr',
    ])
    .default('linear')
    .describe('How the learning rate falls.'),
  lr_scheduler_kwargs: numbersByName
    .optional()
    .describe(
      'num_cycles, power, lr_end, min_lr, min_lr_rate or timescale of the schedule, as transformers has them.',
    ),
  optim: z
    .enum(['adamw_torch', 'adamw_torch_fused', 'sgd', 'adafactor', 'lion_32bit'])
    .default('adamw_torch')
    .describe('The optimizer.'),
  optim_args: name.optional().describe('Its arguments, such as momentum=0.9 for sgd.'),
  use_muon: z.boolean().default(false).describe('Update matrices by Muon and the rest by AdamW.'),
  use_galore: z
    .boolean()
    .default(false)
    .describe('AdamW on projected gradients (GaLore), without an adapter.'),
  galore_target: names.default(['all']).describe('Modules whose gradients are projected.'),
  galore_rank: count.min(1).max(65_536).default(16).describe('Directions that are kept of a gradient.'),
  galore_update_interval: count
    .min(1)
    .max(1e9)
    .default(200)
    .describe('Steps between two choices of directions.'),
  galore_scale: z.number().gt(0).max(1e6).default(2).describe('Factor on projected updates.'),
  galore_proj_type: z
    .literal('std')
    .default('std')
    .describe('How directions are chosen: by the shorter side.'),
  galore_layerwise: z
    .literal(false)
    .default(false)
    .describe('Updates within the backward pass: not supported.'),
  use_badam: z.boolean().default(false).describe('Update one layer at a time (BAdam), without an adapter.'),
  badam_mode: z
    .literal('layer')
    .default('layer')
    .describe("What is updated at a time; 'ratio' is not supported."),
  badam_start_block: count.min(0).optional().describe('The layer to begin with.'),
  badam_switch_mode: z
    .enum(['ascending', 'descending', 'random', 'fixed'])
    .default('ascending')
    .describe('Which layer has its turn next.'),
  badam_switch_interval: count.min(-1).max(1e9).default(50).describe('Steps of a turn; -1 never switches.'),
}
