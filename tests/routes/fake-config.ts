import { z } from '@hono/zod-openapi'

/** A configuration schema as small as the tests need. */
export const trainConfig = z.strictObject({
  model_name_or_path: z.string(),
  dataset: z.string(),
  lora_rank: z.int().min(1).default(8).describe('Rank of the adapter.'),
})
