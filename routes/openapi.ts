import { type OpenAPIHono, z } from '@hono/zod-openapi'
import { chatCompletionChunk } from './schemas/chat.ts'
import { errorEnvelope } from './schemas/common.ts'
import { completionChunk } from './schemas/completions.ts'
import { jobEvent } from './schemas/jobs.ts'
import { trainingConfigComponent } from './training.ts'

const tags = [
  { name: 'Chat', description: 'Conversations with any model, for any OpenAI client.' },
  { name: 'Text', description: 'Tokens and vectors of texts.' },
  { name: 'Models', description: 'Everything that answers: bases, runs, checkpoints, merges, exports.' },
  { name: 'Training', description: 'Fine-tuning runs, with the field names of LLaMA-Factory.' },
  { name: 'Datasets', description: 'The registry in dataset_info.json.' },
  { name: 'Merges', description: 'Full models made of a base and an adapter.' },
  { name: 'Exports', description: 'Model folders to take away.' },
  { name: 'Hub', description: 'Exports and merges for model hub clients and for Ollama.' },
  { name: 'System', description: 'Health and metrics.' },
]

interface DocumentSettings {
  version: string
  keysRequired: boolean
  trainConfig: z.ZodType
}

/** The configuration as JSON Schema, everything in place: references would point outside the component. */
function describeConfig(trainConfig: z.ZodType): Record<string, unknown> {
  const { $schema: _, ...schema } = z.toJSONSchema(trainConfig, {
    io: 'input',
    unrepresentable: 'any',
    reused: 'inline',
  })
  return schema
}

/** Registers what the routes refer to and returns the OpenAPI 3.1 document of all of them. */
export function describeApi(app: OpenAPIHono, { version, keysRequired, trainConfig }: DocumentSettings) {
  const registry = app.openAPIRegistry
  registry.register('Error', errorEnvelope)
  registry.register('JobEvent', jobEvent)
  registry.register('ChatCompletionChunk', chatCompletionChunk)
  registry.register('CompletionChunk', completionChunk)
  registry.registerComponent('schemas', trainingConfigComponent, describeConfig(trainConfig))
  registry.registerComponent('responses', 'Error', {
    description: "What went wrong, in OpenAI's envelope.",
    headers: { 'x-request-id': { schema: { type: 'string' } } },
    content: { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } },
  })
  registry.registerComponent('securitySchemes', 'apiKey', {
    type: 'http',
    scheme: 'bearer',
    description: 'Needed on every route except /health where the operator configured keys.',
  })
  return app.getOpenAPI31Document({
    openapi: '3.1.0',
    info: {
      title: 'Anneal',
      version,
      description:
        'Fine-tune, merge, export and serve language models. A method that a path does not have is answered 405 with the ' +
        "methods that it has in the header Allow, an unknown path 404, both in OpenAI's envelope.",
      license: { name: 'Apache-2.0', url: 'https://www.apache.org/licenses/LICENSE-2.0' },
    },
    servers: [{ url: '/' }],
    tags,
    ...(keysRequired ? { security: [{ apiKey: [] }] } : {}),
  })
}
