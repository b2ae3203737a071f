import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import type { TextService } from './generation-services.ts'
import { errors, json, jsonBody, missing } from './responses.ts'
import { detokenized, detokenizeRequest, tokenized, tokenizeRequest } from './schemas/text.ts'
import { followRequest } from './sse.ts'

const tags = ['Text']

const tokenize = createRoute({
  method: 'post',
  path: '/v1/tokenize',
  tags,
  summary: "Turn text into a model's tokens",
  request: { body: jsonBody(tokenizeRequest) },
  responses: { 200: json(tokenized, 'The token ids.'), ...errors, ...missing },
})

const detokenize = createRoute({
  method: 'post',
  path: '/v1/detokenize',
  tags,
  summary: "Turn a model's tokens into text",
  request: { body: jsonBody(detokenizeRequest) },
  responses: { 200: json(detokenized, 'The text, special tokens included.'), ...errors, ...missing },
})

/** /v1/tokenize and /v1/detokenize, as vLLM has them. */
export function textRoutes(service: TextService): OpenAPIHono {
  const app = new OpenAPIHono({ defaultHook })
  app.openapi(tokenize, async (c) => {
    const { model, prompt, add_special_tokens, return_token_strs } = c.req.valid('json')
    const request = { model, text: prompt, addSpecialTokens: add_special_tokens }
    const { tokens, texts, maxPositions } = await service.tokenize(request, followRequest(c).signal)
    const token_strs = return_token_strs ? texts : null
    return c.json({ count: tokens.length, max_model_len: maxPositions, tokens, token_strs }, 200)
  })
  app.openapi(detokenize, async (c) => {
    const { text } = await service.detokenize(c.req.valid('json'), followRequest(c).signal)
    return c.json({ prompt: text }, 200)
  })
  return app
}
