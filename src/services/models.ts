import { resolve } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { Model, ModelService } from '../../routes/services.ts'
import type { LoadedEngine } from '../engine-host/client.ts'
import { removeCopiedRows } from '../fine-tuning/job-folder.ts'
import { ACTIVE_STATUSES } from '../jobs/types.ts'
import { contextLength } from '../models/model-folder.ts'
import type { ModelEntry } from '../models/registry.ts'
import { removeFolder } from '../models/remove.ts'
import type { ServiceContext } from './context.ts'
import { checkAtRest, conflict, unixTime } from './jobs.ts'

/** Lists models of every kind and deletes those that jobs made. */
export function modelService(context: ServiceContext): ModelService {
  const { models, queue, hosts, leases, settings } = context
  return {
    async list() {
      return (await models.list()).map((entry) => toWire(entry, hosts.loaded()))
    },
    async get(id) {
      return toWire(await models.resolve(id, 'id'), hosts.loaded())
    },
    async loadAdapter(id) {
      const { baseFolder, adapterFolder } = await adapterOf(context, id)
      const { wasLoaded } = await hosts.call(baseFolder, { kind: 'loadAdapter', adapterFolder })
      if (wasLoaded) throw conflict('adapter_loaded', `The adapter ${id} is loaded already.`)
    },
    async unloadAdapter(id) {
      const { baseFolder, adapterFolder } = await adapterOf(context, id)
      const isBaseLoaded = hosts.loaded().some((engine) => engine.baseFolder === baseFolder)
      const call = { kind: 'unloadAdapter', adapterFolder } as const
      if (isBaseLoaded && (await hosts.call(baseFolder, call)).wasLoaded) return
      throw new EngineError('not_found', 'adapter_not_loaded', `The adapter ${id} is not loaded.`, {
        param: 'lora_name',
      })
    },
    async delete(id) {
      const known = await queue.get(id)
      if (known && (await queue.heirOf(known))) {
        // Another job has its folder: there is nothing but the row.
        checkAtRest(known)
        await queue.delete(id)
        await removeCopiedRows(known, settings.directories.saves)
        return
      }
      const entry = (await exportWithoutModel(context, id)) ?? (await models.resolve(id, 'id'))
      if (entry.jobId === null) {
        throw new EngineError(
          'refused',
          'base_model_kept',
          `${id} is a base model. The server deletes only what it made; remove the folder by hand.`,
          { param: 'id' },
        )
      }
      const job = await queue.get(entry.jobId)
      if (job) checkAtRest(job)
      await checkUnused(context, entry)
      await leases.withoutReaders(entry.folder, settings.server.drainSeconds * 1000, async () => {
        if (!entry.adapterFolder) await hosts.unload(entry.baseFolder)
        const { saves } = settings.directories
        const whole = entry.kind !== 'checkpoint' && job
        if (whole) await queue.delete(job.id)
        await removeFolder(entry.folder, saves)
        if (whole) await removeCopiedRows(job, saves)
      })
    },
  }
}

/** @throws EngineError `not_found`, or `invalid` for a model that is no adapter. */
async function adapterOf({ models }: ServiceContext, id: string) {
  const { baseFolder, adapterFolder } = await models.resolve(id, 'lora_name')
  if (adapterFolder !== undefined) return { baseFolder, adapterFolder }
  const message = `${id} is a whole model and no adapter; it is loaded by its first request.`
  throw new EngineError('invalid', 'not_an_adapter', message, { param: 'lora_name' })
}

type Deletable = Pick<ModelEntry, 'id' | 'kind' | 'folder' | 'baseFolder' | 'adapterFolder' | 'jobId'>

/** An export in a form that other programs read and this one does not (GGUF, say): no model, but a folder to delete. */
async function exportWithoutModel(
  { models, queue }: ServiceContext,
  id: string,
): Promise<Deletable | undefined> {
  const job = await queue.get(id)
  if (job?.kind !== 'export' || (await models.list()).some((entry) => entry.id === id)) return undefined
  const { outputDir } = job
  return { id, kind: 'export', folder: outputDir, baseFolder: outputDir, adapterFolder: undefined, jobId: id }
}

/** @throws EngineError `conflict` when a waiting or running job reads one of the model's folders. */
export async function checkUnused(
  { queue }: ServiceContext,
  entry: { id: string; folder: string },
): Promise<void> {
  for (const job of await queue.list({ statuses: ACTIVE_STATUSES })) {
    const task = job.resolved as {
      model?: { baseFolder: string }
      baseFolder?: string
      adapterFolder?: string
      models?: { baseFolder: string; adapterFolder?: string }[]
    }
    const evaluated = task.models?.flatMap((model) => [model.baseFolder, model.adapterFolder]) ?? []
    const read = [task.model?.baseFolder, task.baseFolder, task.adapterFolder, ...evaluated]
    if (read.some((folder) => folder === entry.folder || folder?.startsWith(`${entry.folder}/`))) {
      throw conflict('model_in_use', `${entry.id} is being read by ${job.id}, which is ${job.status}.`)
    }
  }
}

function toWire(entry: ModelEntry, loaded: readonly LoadedEngine[]): Model {
  const engine = loaded.find(({ baseFolder }) => baseFolder === resolve(entry.baseFolder))
  return {
    id: entry.id,
    object: 'model',
    created: unixTime(entry.createdAt),
    owned_by: 'anneal',
    root: entry.root,
    parent: entry.parent,
    kind: entry.kind,
    state: engine?.state ?? 'unloaded',
    device: engine?.device ?? null,
    memory_bytes: engine?.memoryBytes || null,
    max_model_len: contextLength(entry.baseFolder),
  }
}
