import { Validator } from '@seriousme/openapi-schema-validator'
import { describe, expect, it } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { FakeServices, fakeOptions } from './fake-services.ts'

type Specification = Exclude<Parameters<Validator['validate']>[0], string>

interface Operation {
  tags?: string[]
  summary?: string
  security?: unknown[]
  requestBody?: { content: Record<string, { schema: { $ref?: string } }> }
  responses: Record<string, unknown>
}
interface ApiDocument {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: {
    schemas: Record<string, { type?: unknown; properties?: Record<string, unknown>; required?: string[] }>
  }
  security?: unknown[]
}

async function getDocument(services = new FakeServices()): Promise<ApiDocument> {
  const headers = { authorization: 'Bearer k' }
  const response = await createApp(services.asServices(), fakeOptions()).request('/openapi.json', { headers })
  return (await response.json()) as ApiDocument
}

describe('GET /openapi.json', () => {
  it('is a valid OpenAPI 3.1 document', async () => {
    const document = await getDocument()
    const result = await new Validator().validate(structuredClone(document) as unknown as Specification)
    expect(result.errors ?? []).toEqual([])
    expect(document.openapi).toBe('3.1.0')
  })

  it('refers only to components that it has', async () => {
    const document = await getDocument()
    const references = [...JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)]
    expect(references.length).toBeGreaterThan(0)
    for (const [, path] of references) {
      const target = (path ?? '')
        .split('/')
        .reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], document)
      expect(target, path).toBeDefined()
    }
  })

  it('lets only what may be null be null', async () => {
    const { components } = await getDocument()
    const nullable = Object.entries(components.schemas).filter(([, schema]) => Array.isArray(schema.type))
    expect(nullable).toEqual([])
  })

  it('describes every route of the surface with a tag and a summary', async () => {
    const { paths } = await getDocument()
    expect(
      Object.entries(paths)
        .flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`))
        .sort(),
    ).toMatchInlineSnapshot(`
      [
        "DELETE /v1/evaluations/{id}",
        "DELETE /v1/files/{id}",
        "DELETE /v1/models/{id}",
        "DELETE /v1/training/runs/{id}",
        "GET /health",
        "GET /hub/api/models/{id}/revision/{revision}",
        "GET /hub/api/models/{id}/tree/{revision}",
        "GET /hub/{id}/resolve/{revision}/{path}",
        "GET /metrics",
        "GET /v1/datasets",
        "GET /v1/datasets/{name}/preview",
        "GET /v1/evaluations",
        "GET /v1/evaluations/{id}",
        "GET /v1/evaluations/{id}/events",
        "GET /v1/evaluations/{id}/predictions",
        "GET /v1/exports",
        "GET /v1/exports/{id}",
        "GET /v1/exports/{id}/archive.tar",
        "GET /v1/exports/{id}/events",
        "GET /v1/exports/{id}/files",
        "GET /v1/exports/{id}/files/{path}",
        "GET /v1/files",
        "GET /v1/files/{id}",
        "GET /v1/files/{id}/content",
        "GET /v1/fine_tuning/jobs",
        "GET /v1/fine_tuning/jobs/{id}",
        "GET /v1/fine_tuning/jobs/{id}/checkpoints",
        "GET /v1/fine_tuning/jobs/{id}/events",
        "GET /v1/imports",
        "GET /v1/imports/{id}",
        "GET /v1/imports/{id}/events",
        "GET /v1/merges",
        "GET /v1/merges/{id}",
        "GET /v1/merges/{id}/events",
        "GET /v1/models",
        "GET /v1/models/{id}",
        "GET /v1/training/runs",
        "GET /v1/training/runs/{id}",
        "GET /v1/training/runs/{id}/checkpoints",
        "GET /v1/training/runs/{id}/events",
        "GET /v1/training/runs/{id}/log",
        "GET /v1/training/runs/{id}/loss.png",
        "GET /v2/{namespace}/{id}/blobs/{digest}",
        "GET /v2/{namespace}/{id}/manifests/{tag}",
        "POST /hub/api/models/{id}/paths-info/{revision}",
        "POST /v1/chat/completions",
        "POST /v1/chat/completions/render",
        "POST /v1/completions",
        "POST /v1/datasets",
        "POST /v1/datasets/{name}/convert",
        "POST /v1/detokenize",
        "POST /v1/embeddings",
        "POST /v1/evaluations",
        "POST /v1/evaluations/{id}/cancel",
        "POST /v1/evaluations/{id}/resume",
        "POST /v1/exports",
        "POST /v1/exports/{id}/cancel",
        "POST /v1/files",
        "POST /v1/fine_tuning/jobs",
        "POST /v1/fine_tuning/jobs/{id}/cancel",
        "POST /v1/fine_tuning/jobs/{id}/pause",
        "POST /v1/fine_tuning/jobs/{id}/resume",
        "POST /v1/imports/{id}/cancel",
        "POST /v1/load_lora_adapter",
        "POST /v1/merges",
        "POST /v1/merges/{id}/cancel",
        "POST /v1/models/import",
        "POST /v1/tokenize",
        "POST /v1/training/preview",
        "POST /v1/training/runs",
        "POST /v1/training/runs/{id}/cancel",
        "POST /v1/training/runs/{id}/resume",
        "POST /v1/unload_lora_adapter",
      ]
    `)
    for (const operation of Object.values(paths).flatMap((methods) => Object.values(methods))) {
      expect(operation.tags).toHaveLength(1)
      expect(operation.summary).toBeTruthy()
    }
  })

  it('describes the training configuration from the schema that it was given', async () => {
    const { paths, components } = await getDocument()
    const body = paths['/v1/training/runs']?.post?.requestBody?.content['application/json']
    expect(body?.schema.$ref).toBe('#/components/schemas/TrainingConfig')
    expect(components.schemas.TrainingConfig?.properties?.lora_rank).toMatchObject({
      type: 'integer',
      default: 8,
      description: 'Rank of the adapter.',
    })
    expect(components.schemas.TrainingConfig?.required).toEqual(['model_name_or_path', 'dataset'])
  })

  it('asks for the API key on all routes but /health where keys are configured', async () => {
    const services = new FakeServices()
    services.keys = ['k']
    const document = await getDocument(services)
    expect(document.security).toEqual([{ apiKey: [] }])
    expect(document.paths['/health']?.get?.security).toEqual([])
  })
})

describe('GET /docs', () => {
  const app = createApp(new FakeServices().asServices(), fakeOptions())

  it('loads nothing from another host', async () => {
    const response = await app.request('/docs')
    const html = await response.text()
    expect(html).not.toMatch(/https?:\/\//)
    expect(response.headers.get('content-security-policy')).toContain("script-src 'self';")
    for (const [, address] of html.matchAll(/(?:src|href)="([^"]+)"/g)) {
      const asset = await app.request(address ?? '')
      expect(asset.status, address).toBe(200)
      expect(asset.headers.get('content-type'), address).toMatch(/javascript|css/)
    }
  })
})
