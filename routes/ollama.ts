import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { defaultHook, RouteError } from './errors.ts'
import { fileDownload, sendDownload } from './files.ts'
import { errors, json, media, missing } from './responses.ts'
import { imageManifest, MANIFEST_TYPE } from './schemas/ollama.ts'
import type { OllamaService } from './services.ts'

const tags = ['Hub']
const namespace = z.string().openapi({ example: 'anneal' })
const id = z.string().openapi({ example: 'export-5d20c8e17f64' })

const manifest = createRoute({
  method: 'get',
  path: '/v2/{namespace}/{id}/manifests/{tag}',
  tags,
  summary: "Get the manifest of a GGUF export, as Ollama's registry has it",
  description: 'For `ollama pull --insecure HOST:PORT/anneal/EXPORT`. The only tag is `latest`.',
  request: { params: z.object({ namespace, id, tag: z.string().openapi({ example: 'latest' }) }) },
  responses: { 200: json(imageManifest, 'The layers by digest.'), ...errors, ...missing },
})

const blob = createRoute({
  method: 'get',
  path: '/v2/{namespace}/{id}/blobs/{digest}',
  tags,
  summary: 'Download a layer',
  request: {
    params: z.object({ namespace, id, digest: z.string().openapi({ example: `sha256:${'0'.repeat(64)}` }) }),
  },
  responses: {
    200: media('application/octet-stream', 'The whole layer.', 'binary'),
    206: media('application/octet-stream', 'The range that was asked for.', 'binary'),
    ...errors,
    ...missing,
  },
})

export const isRegistryPath = (path: string): boolean => path.startsWith('/v2/')

/**
 * To 401, Ollama answers with a signature that is no API key, and reports what went wrong with that. It shows the body of 403.
 */
export function ollamaHasNoKey(): RouteError {
  const message =
    'Ollama cannot send the API key that this server asks for. Download the export with the key ' +
    '(GET /v1/exports/ID/archive.tar), and run `ollama create NAME -f Modelfile` in its folder.'
  return new RouteError('forbidden', 'missing_api_key', message)
}

/** /v2: GGUF exports in the layout of Ollama's registry (https://github.com/ollama/ollama, server/images.go, download.go). */
export function ollamaRoutes(service: OllamaService): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook })
  for (const route of [manifest, blob]) routes.openAPIRegistry.registerPath(route)
  routes.get('/v2/', (c) => c.json({}))
  routes.get('/v2/:namespace/:id/manifests/:tag', async (c) => {
    checkNamespace(c)
    const tag = c.req.param('tag')
    if (tag !== 'latest') {
      throw new RouteError(
        'not_found',
        'tag_not_found',
        `There is no tag ${JSON.stringify(tag)}; latest is.`,
        'tag',
      )
    }
    return c.body(JSON.stringify(await service.manifest(c.req.param('id'))), 200, {
      'content-type': MANIFEST_TYPE,
    })
  })
  routes.get('/v2/:namespace/:id/blobs/:digest', async (c) => {
    checkNamespace(c)
    const digest = /^sha256[:-]([0-9a-f]{64})$/.exec(c.req.param('digest'))?.[1]
    if (digest === undefined) {
      throw new RouteError(
        'invalid',
        'invalid_digest',
        'A digest is sha256: and 64 hexadecimal digits.',
        'digest',
      )
    }
    const response = await sendDownload(c, fileDownload(await service.blob(c.req.param('id'), digest)))
    // Ollama asks for the whole, reads no further than to this header, and fetches ranges from where it points.
    response.headers.set('location', `./${c.req.param('digest')}`)
    return response
  })
  return routes
}

function checkNamespace(c: Context): void {
  const namespace = c.req.param('namespace') ?? ''
  if (namespace === 'anneal' || namespace === 'library') return
  const message = `There is no namespace ${JSON.stringify(namespace.slice(0, 100))}; anneal is.`
  throw new RouteError('not_found', 'namespace_not_found', message, 'namespace')
}
