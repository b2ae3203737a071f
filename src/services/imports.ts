import { existsSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { checkGguf } from '../../engine/gguf/import.ts'
import { checkFreeSpace } from '../../engine/weights/atomic-folder.ts'
import type { ImportJob, ImportRequest, ImportService } from '../../routes/services.ts'
import { ACTIVE_STATUSES, type Job } from '../jobs/types.ts'
import { newBaseFolder } from '../models/bases.ts'
import { type ImportTask, taskOf } from '../tasks/job-tasks.ts'
import { bytesOf, taskProgressOf } from './artifacts.ts'
import type { ServiceContext } from './context.ts'
import { checkQueueSpace, conflict, jobFieldsOf, jobService, newJobId } from './jobs.ts'
import type { SubmitOptions } from './submit.ts'

export interface Imports extends ImportService {
  create(request: ImportRequest, options?: SubmitOptions): Promise<ImportJob>
}

/** Makes base models of GGUF files. */
export function importService(context: ServiceContext): Imports {
  const { queue, settings } = context
  return {
    ...jobService(context, 'import', toWire),
    async create(request, { owner, trusted } = {}) {
      const file = trusted ? resolve(request.file) : findFile(settings.directories.models, request.file)
      const name = request.name ?? nameOf(file)
      const outputDir = newBaseFolder(settings.directories.models, name)
      const { bytes } = checkGguf(file, request.dtype)
      await checkUnclaimed(context, outputDir, name)
      checkFreeSpace(outputDir, bytes)
      await checkQueueSpace(context, 'import')
      const resolved: ImportTask = { file, name, dtype: request.dtype }
      return toWire(
        await queue.submit({
          id: newJobId('import'),
          kind: 'import',
          request: { ...request },
          resolved: { ...resolved },
          outputDir,
          owner,
        }),
      )
    },
  }
}

/** @throws EngineError `conflict` when a waiting or running import will write this folder. */
async function checkUnclaimed({ queue }: ServiceContext, outputDir: string, name: string): Promise<void> {
  const active = await queue.list({ kind: 'import', statuses: ACTIVE_STATUSES })
  const other = active.find((job) => job.outputDir === outputDir)
  if (other) throw conflict('model_exists', `${other.id} is importing a model as ${name} already.`, 'name')
}

/** The schema lets only plain names through, so that nothing here can lead out of the models folders. */
function findFile(directories: readonly string[], name: string): string {
  const found = directories.map((directory) => join(directory, name)).find((path) => existsSync(path))
  if (found !== undefined) return found
  throw new EngineError(
    'not_found',
    'gguf_not_found',
    `No models folder has a file ${JSON.stringify(name)}.`,
    {
      param: 'file',
    },
  )
}

function nameOf(file: string): string {
  return basename(file)
    .replace(/\.gguf$/i, '')
    .replace(/[^A-Za-z0-9._-]+/g, '-')
}

function toWire(job: Job): ImportJob {
  const { file, name, dtype } = taskOf(job, 'import')
  return {
    id: job.id,
    object: 'import',
    file: basename(file),
    model: name,
    dtype: dtype ?? null,
    progress: taskProgressOf(job),
    bytes: bytesOf(job),
    ...jobFieldsOf(job),
  }
}
