import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { archiveDownload, fileDownload, sendDownload } from './files.ts'
import { jobRoutes } from './jobs.ts'
import { conflict, errors, idParam, json, jsonBody, listBody, media, missing } from './responses.ts'
import { exportFile, exportJob, exportRequest } from './schemas/artifacts.ts'
import { listOf } from './schemas/common.ts'
import type { ExportService } from './services.ts'
import type { StreamSettings } from './sse.ts'
import { archiveOf } from './tar.ts'

const path = '/v1/exports'
const exampleId = 'export-5d20c8e17f64'
const tags = ['Exports']
const params = idParam(exampleId)

const create = createRoute({
  method: 'post',
  path,
  tags,
  summary: 'Export a model',
  description:
    'Writes a folder that other programs load. What the policy refuses answers 400 with the reason.',
  request: { body: jsonBody(exportRequest) },
  responses: { 201: json(exportJob, 'The queued export.'), ...errors, ...missing },
})

const files = createRoute({
  method: 'get',
  path: `${path}/{id}/files`,
  tags,
  summary: 'List the files of an export with their digests',
  request: { params },
  responses: { 200: json(listOf(exportFile), 'Sorted by path.'), ...errors, ...missing, ...conflict },
})

const downloadResponses = {
  200: media('application/octet-stream', 'The whole content, with a strong ETag.', 'binary'),
  206: media('application/octet-stream', 'The range that was asked for.', 'binary'),
  304: { description: 'If-None-Match names the current content.' },
  412: { description: 'The content is not what If-Match names.' },
  416: { description: 'The range lies outside; Content-Range has the size.' },
  ...errors,
  ...missing,
  ...conflict,
}

const file = createRoute({
  method: 'get',
  path: `${path}/{id}/files/{path}`,
  tags,
  summary: 'Download one file',
  description:
    'One Range per request; If-Range, If-None-Match and HEAD work. The ETag is the SHA-256 digest.',
  request: { params: params.extend({ path: z.string().min(1).openapi({ example: 'model.safetensors' }) }) },
  responses: downloadResponses,
})

const archive = createRoute({
  method: 'get',
  path: `${path}/{id}/archive.tar`,
  tags,
  summary: 'Download the whole export as one tar',
  description: 'The same bytes each time: sorted entries with fixed times and owners, so that ranges work.',
  request: { params },
  responses: downloadResponses,
})

/** /v1/exports: model folders to take away, and their downloads. */
export function exportRoutes(service: ExportService, streams: StreamSettings): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook })
    .openapi(create, async (c) => c.json(await service.create(c.req.valid('json')), 201))
    .openapi(files, async (c) => c.json(listBody(await service.files(c.req.valid('param').id)), 200))
    .openapi(archive, async (c) => {
      const { id } = c.req.valid('param')
      const entries = await service.files(id)
      return sendDownload(
        c,
        archiveDownload(
          id,
          archiveOf(id, entries, (path) => service.file(id, path)),
          () => service.hold(id),
        ),
      )
    })
  // A path may have folders. OpenAPI has no word for that, so the route is described with one name and matched with many.
  routes.openAPIRegistry.registerPath(file)
  routes.get(`${path}/:id/files/:path{.+}`, async (c) => {
    return sendDownload(c, fileDownload(await service.file(c.req.param('id'), c.req.param('path'))))
  })
  routes.route(
    '/',
    jobRoutes(exportJob, service, { path, tag: 'Exports', noun: 'export', exampleId, streams }),
  )
  return routes
}
