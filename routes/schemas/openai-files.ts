import { z } from '@hono/zod-openapi'
import { unixTime } from './common.ts'

/** What a file may be for. Only fine-tune is read here; the others are kept and given back. */
const filePurpose = z.enum(['fine-tune', 'assistants', 'batch', 'vision', 'user_data', 'evals'])

/** The fields of the upload form beside the file; clients also send `expires_after[…]`, which is not done here. */
export const fileFields = z.strictObject({ purpose: filePurpose })

export const fileObject = z
  .object({
    id: z.string().openapi({ example: 'file-6f0c1b7d2e9a4c35' }),
    object: z.literal('file'),
    bytes: z.number().int(),
    created_at: unixTime,
    filename: z.string(),
    purpose: filePurpose,
    status: z.literal('processed'),
  })
  .openapi('File')

export const fileQuery = z.object({
  purpose: filePurpose.optional(),
  after: z.string().max(100).optional(),
  limit: z.coerce.number().int().min(1).max(10_000).default(10_000).openapi({ type: 'integer' }),
  order: z.enum(['asc', 'desc']).default('desc'),
})

export type FilePurpose = z.infer<typeof filePurpose>
export type FileObject = z.infer<typeof fileObject>
export type FileQuery = z.infer<typeof fileQuery>
