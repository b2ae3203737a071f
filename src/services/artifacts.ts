import { join } from 'node:path'
import type { TaskProgress } from '../../routes/schemas/jobs.ts'
import type { Job, ProcessIdentity } from '../jobs/types.ts'
import { type ModelFacts, readModelFacts } from '../models/model-folder.ts'
import type { ModelEntry } from '../models/registry.ts'
import type { PolicySubject } from '../policy.ts'
import type { ServiceContext } from './context.ts'
import { checkQueueSpace, newJobId } from './jobs.ts'

/** A model as the policy sees it, with what its folder says. */
export function inspect(entry: ModelEntry): { subject: PolicySubject; facts: ModelFacts } {
  const facts = readModelFacts(entry.baseFolder)
  const { parameters, isQuantized } = facts
  return {
    subject: { id: entry.id, parameters, isQuantized, isAdapter: entry.adapterFolder !== undefined },
    facts,
  }
}

/** A merge's or export's progress as its task last reported it. */
export function taskProgressOf(job: Job): TaskProgress | null {
  const { fraction, message, remaining_seconds: remaining } = job.progress ?? {}
  if (typeof fraction !== 'number') return null
  return {
    fraction,
    message: typeof message === 'string' ? message : '',
    remaining_seconds: typeof remaining === 'number' ? remaining : null,
  }
}

export function bytesOf(job: Job): number | null {
  return typeof job.result?.bytes === 'number' ? job.result.bytes : null
}

/** Submits a merge, an export or an evaluation, which lands in a folder of its own below the saves. */
export async function submitArtifact(
  context: ServiceContext,
  kind: 'merge' | 'export' | 'evaluation',
  { request, resolved, owner }: { request: object; resolved: object; owner: ProcessIdentity | undefined },
): Promise<Job> {
  await checkQueueSpace(context, kind)
  const id = newJobId(kind)
  const outputDir = join(context.settings.directories.saves, `${kind}s`, id)
  return context.queue.submit({
    id,
    kind,
    request: { ...request },
    resolved: { ...resolved },
    outputDir,
    owner,
  })
}
