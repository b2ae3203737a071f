import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { conflict, errors, json, jsonBody, listBody, missing } from './responses.ts'
import { listOf } from './schemas/common.ts'
import {
  dataset,
  datasetConversion,
  datasetFields,
  datasetName,
  datasetPreview,
  datasetPreviewQuery,
} from './schemas/datasets.ts'
import type { DatasetService } from './services.ts'
import { receiveUpload } from './uploads.ts'

export const datasetsPath = '/v1/datasets'
const tags = ['Datasets']
const params = z.object({ name: datasetName })

const list = createRoute({
  method: 'get',
  path: datasetsPath,
  tags,
  summary: 'List the datasets',
  description: 'The entries of dataset_info.json, also those that cannot be used, with the reason.',
  responses: { 200: json(listOf(dataset), 'All datasets.'), ...errors },
})

// A plain schema, not a zod one: a zod form would be read into memory before the handler, and files come streamed.
const uploadForm = {
  type: 'object' as const,
  required: ['name', 'file'],
  properties: {
    name: { type: 'string' as const, example: 'faq' },
    file: { type: 'string' as const, format: 'binary', description: 'json, jsonl, csv, parquet or txt.' },
    formatting: { type: 'string' as const, enum: ['alpaca', 'sharegpt', 'openai'], default: 'alpaca' },
    ranking: {
      type: 'string' as const,
      enum: ['true', 'false'],
      description: 'The rows are pairs of a chosen and a rejected answer.',
    },
    columns: { type: 'string' as const, description: 'JSON object as in dataset_info.json.' },
    tags: { type: 'string' as const, description: 'JSON object as in dataset_info.json.' },
  },
}

const create = createRoute({
  method: 'post',
  path: datasetsPath,
  tags,
  summary: 'Upload a dataset',
  request: { body: { required: true, content: { 'multipart/form-data': { schema: uploadForm } } } },
  responses: { 201: json(dataset, 'The dataset.'), ...errors, ...conflict },
})

const convert = createRoute({
  method: 'post',
  path: `${datasetsPath}/{name}/convert`,
  tags,
  summary: 'Make a new dataset with other keys',
  request: { params, body: jsonBody(datasetConversion) },
  responses: { 201: json(dataset, 'The new dataset.'), ...errors, ...missing, ...conflict },
})

const preview = createRoute({
  method: 'get',
  path: `${datasetsPath}/{name}/preview`,
  tags,
  summary: 'See rows, rendered text and trained tokens',
  request: { params, query: datasetPreviewQuery },
  responses: { 200: json(datasetPreview, 'Some rows.'), ...errors, ...missing },
})

/** /v1/datasets: the registry, uploads, conversion and preview. */
export function datasetRoutes(service: DatasetService, maxUploadBytes: number): OpenAPIHono {
  return new OpenAPIHono({ defaultHook })
    .openapi(list, async (c) => c.json(listBody(await service.list()), 200))
    .openapi(create, async (c) => {
      const { fields, upload } = await receiveUpload(c, maxUploadBytes, datasetFields, (name, content) =>
        service.stage(name, content),
      )
      try {
        return c.json(await service.create(fields, upload), 201)
      } finally {
        await upload.discard()
      }
    })
    .openapi(convert, async (c) => {
      const { name } = c.req.valid('param')
      return c.json(await service.convert(name, c.req.valid('json')), 201)
    })
    .openapi(preview, async (c) => {
      const { name } = c.req.valid('param')
      return c.json(await service.preview(name, c.req.valid('query')), 200)
    })
}
