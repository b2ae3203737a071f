import { z } from '@hono/zod-openapi'
import { jobFields, taskProgress } from './jobs.ts'

const modelId = z.string().min(1).max(200)

/** Either a run (or one of its checkpoints), whose base is known, or a base and an adapter by name. */
export const mergeRequest = z
  .strictObject({
    model: modelId.optional().openapi({
      description: 'A run or one of its checkpoints.',
      example: 'run-3f9a1c07b2de',
    }),
    base: modelId.optional().openapi({ description: 'A base model; needs `adapter`.' }),
    adapter: modelId.optional().openapi({ description: 'A run or checkpoint whose adapter goes on `base`.' }),
  })
  .superRefine((value, context) => {
    const pair = value.base !== undefined && value.adapter !== undefined
    const half = (value.base !== undefined || value.adapter !== undefined) && !pair
    if (half) {
      const missing = value.base === undefined ? 'base' : 'adapter'
      context.addIssue({ code: 'custom', path: [missing], message: '`base` and `adapter` go together' })
    } else if ((value.model === undefined) === !pair) {
      context.addIssue({
        code: 'custom',
        path: ['model'],
        message: 'give either `model` or `base` and `adapter`',
      })
    }
  })
  .openapi('MergeRequest')

export const merge = z
  .object({
    id: z
      .string()
      .openapi({ description: 'Also the id of the merged model.', example: 'merge-91be04d2aa3c' }),
    object: z.literal('merge'),
    base: z.string(),
    adapter: z.string().openapi({ description: 'The run or checkpoint that was merged.' }),
    progress: taskProgress.nullable(),
    bytes: z.number().int().nullable(),
    ...jobFields,
  })
  .openapi('Merge')

const exportFormat = z.enum(['safetensors', 'gptq', 'gguf', 'onnx', 'ollama', 'adapter', 'adapter-gguf'])

/** How a quantized export rounds, and on which data; LLaMA-Factory's names where it has one. */
const quantizationFields = {
  method: z
    .enum(['rtn', 'gptq', 'awq'])
    .optional()
    .openapi({
      description:
        "Round to nearest, or GPTQ or AWQ scaling with calibration data; the format's usual one by default. Of GGUF and " +
        'Ollama, Q4_K_M is rounded to nearest alone.',
    }),
  group_size: z
    .union([z.literal(32), z.literal(64), z.literal(128)])
    .optional()
    .openapi({ description: 'Inputs that share a scale, below 16 bits in gptq and onnx; 128 by default.' }),
  sym: z.boolean().optional().openapi({
    description: 'Zero stays in the middle of the codes, below 16 bits in gptq and onnx; true by default.',
  }),
  desc_act: z.boolean().default(false).openapi({ description: 'GPTQ: the largest activations first.' }),
  damp_percent: z.number().positive().max(1).optional().openapi({
    description: 'Method gptq: damping; 0.05 by default.',
  }),
  gguf_type: z.enum(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K_M']).optional().openapi({
    description:
      'Formats gguf and ollama: the file type; Q8_0 and Q4_K_M by default, Q4_0 at 4 bits with AWQ.',
  }),
  export_quantization_dataset: z.string().min(1).max(64).optional().openapi({
    description: 'Calibration text, by the name of a dataset; GPTQ and AWQ need it.',
    example: 'c4_demo',
  }),
  export_quantization_nsamples: z.int().min(1).max(4096).default(128),
  export_quantization_maxlen: z.int().min(8).max(8192).default(1024).openapi({
    description: 'Tokens of each calibration window; only longer rows give windows.',
  }),
  seed: z.int().min(0).max(4_294_967_295).default(42),
  report_dataset: z.string().min(1).max(64).optional().openapi({
    description: 'Text on which the report measures; the calibration dataset by default.',
  }),
  report_tokens: z.int().min(16).max(1_000_000).default(4096),
  max_kld: z.number().positive().optional().openapi({
    description: 'Fails the export, keeping its report, when the mean KL divergence is larger.',
  }),
}

export const exportRequest = z
  .strictObject({
    model: modelId.openapi({
      description: 'A base model or a merge; a run or checkpoint for the adapter formats.',
      example: 'merge-91be04d2aa3c',
    }),
    bits: z.int().min(1).max(32).default(16).openapi({ description: '16, or what the policy allows.' }),
    format: exportFormat.default('safetensors'),
    dtype: z.enum(['bfloat16', 'float16', 'float32']).optional().openapi({
      description: "Of a 16-bit (or wider) export; the model's own by default.",
    }),
    export_size: z.number().positive().max(1000).default(5).openapi({ description: 'GB in one shard.' }),
    ...quantizationFields,
  })
  .openapi('ExportRequest')

export const exportJob = z
  .object({
    id: z
      .string()
      .openapi({ description: 'Also the id of the exported model.', example: 'export-5d20c8e17f64' }),
    object: z.literal('export'),
    model: z.string(),
    bits: z.number().int(),
    format: exportFormat,
    dtype: z.string().nullable(),
    method: z.string().nullable().openapi({ description: 'How weights were rounded; null at full width.' }),
    progress: taskProgress.nullable(),
    bytes: z.number().int().nullable(),
    ...jobFields,
  })
  .openapi('Export')

export const exportFile = z
  .object({
    object: z.literal('export.file'),
    path: z.string().openapi({ example: 'model.safetensors' }),
    bytes: z.number().int(),
    sha256: z.string().openapi({ description: '64 hexadecimal digits.' }),
  })
  .openapi('ExportFile')

export type MergeRequest = z.infer<typeof mergeRequest>
export type Merge = z.infer<typeof merge>
export type ExportRequest = z.infer<typeof exportRequest>
export type ExportJob = z.infer<typeof exportJob>
export type ExportFile = z.infer<typeof exportFile>
