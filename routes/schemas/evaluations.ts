import { z } from '@hono/zod-openapi'
import { jobFields, taskProgress } from './jobs.ts'

const modelIds = z.array(z.string().min(1).max(150)).min(1).max(16)

/** LLaMA-Factory's names where it has the field. */
export const evaluationRequest = z
  .strictObject({
    model: z
      .union([z.string().min(1).max(150), modelIds])
      .openapi({ description: 'One model id, or several to compare.', example: 'run-3f9a1c07b2de' }),
    dataset: z.string().min(1).max(200).optional().openapi({
      description: 'A dataset of dataset_info.json, or several with commas between them.',
      example: 'anneal_identity',
    }),
    task: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9-]*_(test|val|dev)$/, 'must be like mmlu_test')
      .optional()
      .openapi({
        description:
          'Multiple choice instead of a dataset: `NAME_SPLIT` reads `evaluation/NAME/SPLIT/*.csv` of the datasets folder.',
        example: 'mmlu_test',
      }),
    stage: z.enum(['sft', 'pt']).default('sft').openapi({ description: 'pt reads rows as raw text.' }),
    predict_with_generate: z.boolean().optional().openapi({
      description:
        'Generate answers and score them with BLEU-4 and ROUGE; by default where rows have answers.',
    }),
    template: z.string().max(100).optional(),
    cutoff_len: z.int().min(2).max(131_072).default(1024),
    max_samples: z.int().positive().max(10_000_000).optional(),
    max_new_tokens: z.int().min(1).max(32_768).default(512),
    do_sample: z.boolean().default(false),
    temperature: z.number().min(0).max(2).default(0.95),
    top_p: z.number().gt(0).max(1).default(0.7),
    top_k: z.int().min(0).max(100_000).default(50),
    seed: z.int().min(0).max(4_294_967_295).default(42),
    n_shot: z
      .int()
      .min(0)
      .max(20)
      .default(5)
      .openapi({ description: 'Examples before each question of a task.' }),
    lang: z.enum(['en', 'zh']).default('en').openapi({ description: "Language of a task's prompts." }),
  })
  .openapi('EvaluationRequest')

const evaluationResult = z
  .object({
    model: z.string(),
    metrics: z.record(z.string(), z.number()).openapi({
      description:
        'eval_loss, eval_perplexity, eval_accuracy (of tokens), eval_tokens; predict_bleu-4, predict_rouge-1, -2, -l; ' +
        'for a task accuracy, and accuracy/GROUP for each of its groups. Rows that are longer than the model can read do not ' +
        'count in the loss (eval_too_long) and have no answer (predict_too_long, too_long).',
    }),
  })
  .openapi('EvaluationResult')

export const evaluation = z
  .object({
    id: z.string().openapi({ example: 'eval-8b1d4f2a90c7' }),
    object: z.literal('evaluation'),
    models: z.array(z.string()),
    dataset: z.string().nullable(),
    task: z.string().nullable(),
    progress: taskProgress.nullable(),
    results: z
      .array(evaluationResult)
      .openapi({ description: 'One for each model, in the order of the request.' }),
    ...jobFields,
  })
  .openapi('Evaluation')

export type EvaluationRequest = z.infer<typeof evaluationRequest>
export type EvaluationResult = z.infer<typeof evaluationResult>
export type Evaluation = z.infer<typeof evaluation>
