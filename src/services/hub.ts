import { EngineError } from '../../engine/errors.ts'
import type { HubRepository, HubService } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import type { ServiceContext } from './context.ts'
import { commitOf, fileOf, filesOf } from './published.ts'

/** Hands out finished exports and merges as repositories of a model hub. */
export function hubService({ queue, leases }: ServiceContext): HubService {
  const find = async (id: string): Promise<Job> => {
    const job = await queue.get(id)
    if ((job?.kind === 'export' || job?.kind === 'merge') && job.status === 'succeeded') return job
    throw new EngineError(
      'not_found',
      'repository_not_found',
      `There is no repository ${JSON.stringify(id.slice(0, 120))}: finished exports and merges are repositories.`,
      { param: 'id' },
    )
  }
  return {
    async repository(id) {
      return describe(await find(id))
    },
    async file(id, path) {
      return fileOf(await find(id), path, leases)
    },
  }
}

function describe(job: Job): HubRepository {
  const files = filesOf(job)
  return { id: job.id, commit: commitOf(files), createdAt: job.finishedAt ?? job.createdAt, files }
}
