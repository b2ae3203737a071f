import { existsSync } from 'node:fs'
import { basename, join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import {
  type TemplateChoice,
  type TemplateFields,
  templateChoice,
} from '../../engine/text/template-choice.ts'
import type { JobQueue } from '../jobs/queue.ts'
import type { Job } from '../jobs/types.ts'
import { findBases, misnamedFolders } from './bases.ts'
import { ADAPTER_WEIGHTS, findCheckpoints, holdsWeights } from './checkpoints.ts'
import { modelIdOf } from './fine-tuned-names.ts'
import { baseOfRun } from './run-base.ts'

export type ModelKind = 'base' | 'run' | 'checkpoint' | 'merge' | 'export'

/** A model that can answer: a folder of weights, and for an adapter the base that it lies over. */
export interface ModelEntry {
  id: string
  kind: ModelKind
  /** The folder with the whole model's weights. */
  baseFolder: string
  /** The PEFT folder of an adapter over it. */
  adapterFolder: string | undefined
  /** The folder that is this model's own: what a delete removes. */
  folder: string
  /** The id of the base model at the start of its lineage. */
  root: string
  /** The id of the model it was made from. */
  parent: string | null
  /** The job that made it. */
  jobId: string | null
  /** The chat template that training used; undefined is the base folder's own. */
  template: string | TemplateChoice | undefined
  createdAt: Date
}

/** What a job's `resolved` says about the model that it starts from. */
interface JobLineage {
  model?: { id: string; baseFolder: string; root: string; template?: string | TemplateChoice }
  config?: TemplateFields
  format?: string
}

/** Letters, digits and . _ - with an optional checkpoint; nothing in it can lead out of a folder. */
const MODEL_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}(:ckpt-step-\d{1,12})?$/

/** Who made a model, in its name on a hub; a folder here is named without it. */
const HUB_ORGANIZATION = /^[A-Za-z0-9][A-Za-z0-9._-]{0,95}\//

const NEAR_MATCHES = 3

/** Finds models by id among the base folders and what jobs have made. */
export class ModelRegistry {
  readonly #directories: readonly string[]
  readonly #queue: JobQueue

  constructor(directories: readonly string[], queue: JobQueue) {
    this.#directories = directories
    this.#queue = queue
  }

  /** All models: bases by name, then what jobs made, newest first, a run's checkpoints after it. */
  async list(): Promise<ModelEntry[]> {
    const bases = [...findBases(this.#directories)].map(([id, base]) => baseEntry(id, base))
    // Newest first: what lies in a folder belongs to the last job that was given it.
    const taken = new Set<string>()
    const owners = (await this.#queue.list()).filter(({ outputDir }) => {
      const isFirst = !taken.has(outputDir)
      taken.add(outputDir)
      return isFirst
    })
    return [...bases, ...owners.flatMap(entriesOf)]
  }

  /**
   * The model with an id.
   * @throws EngineError `not_found` with ids that look alike.
   */
  async resolve(id: string, param = 'model'): Promise<ModelEntry> {
    const plain = modelIdOf(id) ?? id.replace(HUB_ORGANIZATION, '')
    const found = MODEL_ID.test(plain) ? await this.#lookUp(plain) : undefined
    if (found) return found
    throw await this.#unknown(id, param)
  }

  async #lookUp(id: string): Promise<ModelEntry | undefined> {
    const base = findBases(this.#directories).get(id)
    if (base) return baseEntry(id, base)
    const [jobId = ''] = id.split(':')
    const job = await this.#queue.get(jobId)
    if (!job || (await this.#queue.heirOf(job))) return undefined
    return entriesOf(job).find((entry) => entry.id === id)
  }

  async #unknown(id: string, param: string): Promise<EngineError> {
    const misnamed = misnamedFolders(this.#directories).find(({ folder }) => basename(folder) === id)
    if (misnamed) {
      const message = `The folder ${JSON.stringify(id)} cannot be used as a model: ${misnamed.reason}.`
      return new EngineError('not_found', 'model_not_found', message, { param })
    }
    const ids = (await this.list()).map((entry) => entry.id)
    const near = nearest(id, ids)
    const known =
      near.length > 0
        ? ` Did you mean ${near.join(' or ')}?`
        : ids.length > 0
          ? ` Known: ${ids.slice(0, NEAR_MATCHES).join(', ')}${ids.length > NEAR_MATCHES ? ', …' : ''}.`
          : ` There is no base model in ${this.#directories.join(', ')}.`
    const job = MODEL_ID.test(id) ? await this.#queue.get(id.split(':')[0]!) : undefined
    const heir = job && (await this.#queue.heirOf(job))
    if (heir) {
      const message = `The folder of ${job.id} was taken over by ${heir}, so it has no model any more.`
      return new EngineError('not_found', 'model_not_found', message, { param })
    }
    const message =
      job?.id === id
        ? `${id} has no model to use yet (it is ${job.status}).${known}`
        : `The model ${JSON.stringify(id.slice(0, 120))} does not exist.${known}`
    return new EngineError('not_found', 'model_not_found', message, { param })
  }
}

/** A base model as the registry lists it, also one that lies outside the models folders. */
export function baseEntry(
  id: string,
  { folder, createdAt }: { folder: string; createdAt: Date },
): ModelEntry {
  return {
    id,
    kind: 'base',
    baseFolder: folder,
    adapterFolder: undefined,
    folder,
    root: id,
    parent: null,
    jobId: null,
    template: undefined,
    createdAt,
  }
}

/** The models that a job has made so far. */
function entriesOf(job: Job): ModelEntry[] {
  const lineage = job.resolved as JobLineage
  if (!lineage.model) return []
  return job.kind === 'train' ? runEntries(job, lineage) : artifactEntries(job, lineage)
}

function runEntries(job: Job, { model, config }: JobLineage): ModelEntry[] {
  const entry = (id: string, kind: ModelKind, folder: string, createdAt: Date): ModelEntry => {
    const isAdapter = existsSync(join(folder, ADAPTER_WEIGHTS))
    return {
      id,
      kind,
      baseFolder: isAdapter ? baseOfRun(job.outputDir, model!.baseFolder) : folder,
      adapterFolder: isAdapter ? folder : undefined,
      folder,
      root: model!.root,
      parent: kind === 'run' ? model!.id : job.id,
      jobId: job.id,
      template: config && templateChoice(config),
      createdAt,
    }
  }
  const checkpoints = findCheckpoints(job.outputDir)
    .toReversed()
    .map(({ step, folder, createdAt }) =>
      entry(`${job.id}:ckpt-step-${step}`, 'checkpoint', folder, createdAt),
    )
  if (job.status !== 'succeeded' || !holdsWeights(job.outputDir)) return checkpoints
  return [entry(job.id, 'run', job.outputDir, job.finishedAt ?? job.createdAt), ...checkpoints]
}

function artifactEntries(job: Job, { model, format = 'safetensors' }: JobLineage): ModelEntry[] {
  if (job.status !== 'succeeded' || format !== 'safetensors' || !holdsWeights(job.outputDir)) return []
  return [
    {
      id: job.id,
      kind: job.kind === 'merge' ? 'merge' : 'export',
      baseFolder: job.outputDir,
      adapterFolder: undefined,
      folder: job.outputDir,
      root: model!.root,
      parent: model!.id,
      jobId: job.id,
      template: model!.template,
      createdAt: job.finishedAt ?? job.createdAt,
    },
  ]
}

/** Ids that begin alike, contain one another or share most letters. */
function nearest(wanted: string, ids: string[]): string[] {
  const name = wanted.toLowerCase().slice(0, 120)
  const score = (id: string) => {
    const other = id.toLowerCase()
    if (name !== '' && (other.includes(name) || name.includes(other))) return 1
    let common = 0
    while (common < name.length && name[common] === other[common]) common++
    return common / Math.max(name.length, other.length, 1)
  }
  return ids
    .map((id) => ({ id, score: score(id) }))
    .filter((candidate) => candidate.score >= 0.5)
    .sort((a, b) => b.score - a.score)
    .slice(0, NEAR_MATCHES)
    .map((candidate) => candidate.id)
}
