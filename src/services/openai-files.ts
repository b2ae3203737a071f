import type { FileObject } from '../../routes/schemas/openai-files.ts'
import type { FileService, StagedUpload } from '../../routes/services.ts'
import { type StagedFile, stageFile } from '../datasets/staging.ts'
import type { FileRecord } from '../files/store.ts'
import { readTrainingFile } from '../fine-tuning/rows.ts'
import type { ServiceContext } from './context.ts'
import { pageAfter } from './page-after.ts'

/** OpenAI's files: what clients upload to fine-tune with. */
export function fileService({ files, settings }: ServiceContext): FileService {
  /** Which file on disk an upload that routes hold stands for. */
  const stagedFiles = new WeakMap<StagedUpload, StagedFile>()
  return {
    async stage(fileName, content) {
      const limits = { directory: files.stagingDirectory, limitBytes: settings.limits.uploadBytes }
      const file = await stageFile(content, { ...limits, extension: '' })
      const upload: StagedUpload = { fileName, bytes: file.bytes, discard: () => file.discard() }
      stagedFiles.set(upload, file)
      return upload
    },
    async create(purpose, upload) {
      const file = stagedFiles.get(upload)
      if (!file) throw new Error('This upload was not staged here.')
      if (purpose === 'fine-tune') for await (const _ of readTrainingFile(file.path));
      return toWire(await files.add(file, { filename: upload.fileName, purpose }))
    },
    async list({ purpose, after, limit, order }) {
      const all = (await files.list()).filter((file) => purpose === undefined || file.purpose === purpose)
      const ordered = order === 'asc' ? all.toReversed() : all
      return pageAfter(ordered.map(toWire), after, limit)
    },
    async get(id) {
      return toWire(await files.get(id))
    },
    async content(id) {
      const { bytes } = await files.get(id)
      return { size: bytes, read: (start, end) => files.read(id, start, end) }
    },
    delete: (id) => files.delete(id),
  }
}

function toWire({ id, filename, purpose, bytes, createdAt }: FileRecord): FileObject {
  return {
    id,
    object: 'file',
    bytes,
    created_at: Math.floor(createdAt / 1000),
    filename,
    purpose: purpose as FileObject['purpose'],
    status: 'processed',
  }
}
