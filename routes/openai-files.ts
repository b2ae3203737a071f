import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { sendText } from './files.ts'
import { errors, idParam, json, media, missing, pageBody } from './responses.ts'
import { deleted, pageOf } from './schemas/common.ts'
import { fileFields, fileObject, fileQuery } from './schemas/openai-files.ts'
import type { FileService } from './services.ts'
import { receiveUpload } from './uploads.ts'

export const filesPath = '/v1/files'
const tags = ['Files']
const params = idParam('file-6f0c1b7d2e9a4c35')

// A plain schema, not a zod one: a zod form would be read into memory before the handler, and files come streamed.
const uploadForm = {
  type: 'object' as const,
  required: ['file', 'purpose'],
  properties: {
    file: { type: 'string' as const, format: 'binary' },
    purpose: { type: 'string' as const, enum: fileFields.shape.purpose.options },
  },
}

const create = createRoute({
  method: 'post',
  path: filesPath,
  tags,
  summary: 'Upload a file',
  description: 'A file for fine-tuning is checked line by line: JSON Lines of chats, or of preferences.',
  request: { body: { required: true, content: { 'multipart/form-data': { schema: uploadForm } } } },
  responses: { 200: json(fileObject, 'The file.'), ...errors },
})

const list = createRoute({
  method: 'get',
  path: filesPath,
  tags,
  summary: 'List the files',
  request: { query: fileQuery },
  responses: { 200: json(pageOf(fileObject), 'One page.'), ...errors },
})

const get = createRoute({
  method: 'get',
  path: `${filesPath}/{id}`,
  tags,
  summary: 'Get one file',
  request: { params },
  responses: { 200: json(fileObject, 'The file.'), ...errors, ...missing },
})

const content = createRoute({
  method: 'get',
  path: `${filesPath}/{id}/content`,
  tags,
  summary: 'Download what a file holds',
  request: { params },
  responses: { 200: media('text/plain', 'Its bytes.', 'binary'), ...errors, ...missing },
})

const remove = createRoute({
  method: 'delete',
  path: `${filesPath}/{id}`,
  tags,
  summary: 'Delete a file',
  request: { params },
  responses: { 200: json(deleted, 'It is gone.'), ...errors, ...missing },
})

/** /v1/files as OpenAI's clients use it. */
export function fileRoutes(service: FileService, maxUploadBytes: number): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(create, async (c) => {
      const { fields, upload } = await receiveUpload(c, maxUploadBytes, fileFields, (name, stream) =>
        service.stage(name, stream),
      )
      try {
        return c.json(await service.create(fields.purpose, upload), 200)
      } finally {
        await upload.discard()
      }
    })
    .openapi(list, async (c) => c.json(pageBody(await service.list(c.req.valid('query'))), 200))
    .openapi(get, async (c) => c.json(await service.get(c.req.valid('param').id), 200))
    .openapi(content, async (c) => sendText(c, await service.content(c.req.valid('param').id), undefined))
    .openapi(remove, async (c) => {
      const { id } = c.req.valid('param')
      await service.delete(id)
      return c.json({ id, object: 'file', deleted: true as const }, 200)
    })
}
