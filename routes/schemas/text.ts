import { z } from '@hono/zod-openapi'
import { modelId, tokenId } from './generation.ts'

export const tokenizeRequest = z
  .strictObject({
    model: modelId,
    prompt: z.string(),
    add_special_tokens: z
      .boolean()
      .default(true)
      .openapi({ description: 'With the tokens that plain text gets in front, as completions do it.' }),
    return_token_strs: z.boolean().nullish(),
  })
  .openapi('TokenizeRequest')

export const tokenized = z
  .object({
    count: z.int(),
    max_model_len: z.int(),
    tokens: z.array(z.int()),
    token_strs: z.array(z.string()).nullable(),
  })
  .openapi('Tokenized')

export const detokenizeRequest = z
  .strictObject({ model: modelId, tokens: z.array(tokenId).max(1_000_000) })
  .openapi('DetokenizeRequest')

export const detokenized = z.object({ prompt: z.string() }).openapi('Detokenized')

const input = z.union([
  z.string().min(1),
  z.array(z.string().min(1)).min(1).max(2048),
  z.array(tokenId).min(1).max(1_000_000),
  z.array(z.array(tokenId).min(1).max(1_000_000)).min(1).max(2048),
])

export const embeddingRequest = z
  .strictObject({
    model: modelId,
    input,
    encoding_format: z.enum(['float', 'base64']).nullish(),
    dimensions: z.int().min(1).max(100_000).nullish().openapi({
      description: "Only the model's own number: a shorter vector would not mean what it should.",
    }),
    user: z.string().nullish(),
  })
  .openapi('EmbeddingRequest')

export const embeddings = z
  .object({
    object: z.literal('list'),
    model: z.string(),
    data: z.array(
      z.object({
        object: z.literal('embedding'),
        index: z.int(),
        embedding: z.union([z.array(z.number()), z.string()]),
      }),
    ),
    usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() }),
  })
  .openapi('Embeddings')
