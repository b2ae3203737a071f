import { setTimeout as sleep } from 'node:timers/promises'
import { EngineError, messageOf } from '../../engine/errors.ts'
import { describePlacement, ON_CPU, type Placement } from '../device/devices.ts'
import { event } from './event.ts'
import { failureOf } from './failure.ts'
import { type ChildEnd, JobProcess, type JobProcessOptions } from './job-process.ts'
import type { Job } from './types.ts'

/** Where jobs compute. */
export interface JobPlaces {
  /** @throws EngineError `unsupported` 'device_unavailable' while the job's device is not there. */
  place(job: Job): Promise<Placement>
  /** Whether the device of a job that has failed still works. */
  retest(placement: Placement): Promise<boolean>
  /** Told when the process of a placement has ended, or never began. */
  release?(placement: Placement): void
  /** Pause between looks for a device that has gone, in milliseconds; half a minute when left out. */
  retryMs?: number
}

export interface JobRunOptions extends Omit<JobProcessOptions, 'job'> {
  job: Job
  places: JobPlaces
}

const RETRY_MS = 30_000
/** A device that fails this often under a job is not to be trusted, whatever its self-test says between. */
const MAX_LOSSES = 5

export const jobsOnCpu: JobPlaces = {
  place: async () => ON_CPU,
  retest: async () => true,
}

/**
 * A claimed job on its way to its end: placed on a device, run in a child process. Where the device fails under it, the job
 * goes on from what it has saved, in another child on another device, or on the same one when it is back.
 */
export class JobRun {
  readonly #options: JobRunOptions
  readonly #stop = new AbortController()
  #child: JobProcess | undefined
  /** Settles when the job has ended; never rejects. */
  readonly ended: Promise<ChildEnd>

  constructor(options: JobRunOptions) {
    this.#options = options
    this.ended = this.#run().catch((error) => ({ type: 'failed', error: this.#notStarted(error) }))
  }

  /** Asks the job to stop; kills its child when that takes longer than the grace period. */
  stop(): void {
    this.#stop.abort()
    this.#child?.stop()
  }

  async #run(): Promise<ChildEnd> {
    const { job, places } = this.#options
    for (let losses = 0; ; losses++) {
      const placement = await this.#place(losses > 0 || job.attempts > 1)
      if (placement === undefined) return { type: 'stopped', message: 'It had no device yet.' }
      const end = await this.#runOn(placement, job.attempts + losses).finally(() =>
        places.release?.(placement),
      )
      if (end.type !== 'failed' || placement.name === 'cpu' || !mayBeTheDevice(end.error)) return end
      if (losses === MAX_LOSSES || (await places.retest(placement))) return end
      const what = `${placement.name} failed under the job and fails its self-test too; the job goes on from what it has saved.`
      this.#tell('warning', `${what} ${end.error.message}`, { code: 'device_lost' })
    }
  }

  /** A job that has begun waits for its device; one that has not is refused. Undefined when it was stopped meanwhile. */
  async #place(hasBegun: boolean): Promise<Placement | undefined> {
    const { job, places } = this.#options
    for (let tries = 0; !this.#stop.signal.aborted; tries++) {
      try {
        const placement = await places.place(job)
        if (!this.#stop.signal.aborted) return placement
        places.release?.(placement)
      } catch (error) {
        const isGone = error instanceof EngineError && error.code === 'device_unavailable'
        if (!isGone || !hasBegun) throw error
        if (tries === 0) this.#tell('warning', `Waiting. ${error.message}`, { code: 'device_lost' })
        const { retryMs = RETRY_MS } = places
        await sleep(retryMs, undefined, { signal: this.#stop.signal }).catch(() => {})
      }
    }
    return undefined
  }

  #runOn(placement: Placement, attempt: number): Promise<ChildEnd> {
    const { job, entry, logFile, graceMs, onStarted, onEvent } = this.#options
    const how = attempt > 1 ? 'Started again' : 'Started'
    const where = placement.device.kind === 'cpu' ? '' : ` on ${describePlacement(placement)}`
    this.#tell('started', `${how}${where}.`, { attempt, device: placement.name })
    this.#child = new JobProcess({
      job: { ...job, attempt, placement },
      entry,
      logFile,
      graceMs,
      onStarted,
      onEvent,
    })
    return this.#child.ended
  }

  #tell(...about: Parameters<typeof event>): void {
    this.#options.onEvent(event(...about))
  }

  #notStarted(error: unknown) {
    if (error instanceof EngineError) return failureOf(error)
    const message = messageOf(error)
    return {
      kind: 'internal',
      code: 'worker_not_started',
      message: `${this.#options.job.id} could not be started: ${message}`,
      param: null,
    }
  }
}

/** Whether a job may have failed because its device did: what the engine says, or anything unexpected. */
function mayBeTheDevice({ kind, code }: { kind: string; code: string }): boolean {
  return kind === 'internal' || code === 'device_lost' || code === 'device_unavailable'
}
