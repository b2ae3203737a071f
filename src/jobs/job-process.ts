import type { ChildProcess } from 'node:child_process'
import { closeSync, fstatSync, mkdirSync, openSync, readSync } from 'node:fs'
import { dirname } from 'node:path'
import { forkProgram } from '../fork-program.ts'
import { identityOf } from './process-identity.ts'
import type { FromWorker, ToWorker, WorkerJob } from './protocol.ts'
import type { JobFailure, NewEvent, ProcessIdentity } from './types.ts'

/** How a child ended. `stopped` is what it was asked for; `killed` is a stop that took too long. */
export type ChildEnd =
  | { type: 'succeeded'; result: Record<string, unknown> }
  | { type: 'stopped'; message: string }
  | { type: 'killed' }
  | { type: 'failed'; error: JobFailure }

export interface JobProcessOptions {
  job: WorkerJob
  /** The module that the child runs. */
  entry: URL
  /** Where the child's stdout and stderr go, appended. */
  logFile: string
  /** How long a stop may take before the child is killed. */
  graceMs: number
  onStarted(worker: ProcessIdentity): void
  onEvent(event: NewEvent): void
}

const LOG_TAIL_BYTES = 2000

/** One job's child process. */
export class JobProcess {
  readonly #options: JobProcessOptions
  readonly #child: ChildProcess
  readonly #logStart: number
  #last: FromWorker | undefined
  #killTimer: NodeJS.Timeout | undefined
  #killed = false
  /** Settles when the child has ended; never rejects. */
  readonly ended: Promise<ChildEnd>

  constructor(options: JobProcessOptions) {
    this.#options = options
    mkdirSync(dirname(options.logFile), { recursive: true })
    const log = openSync(options.logFile, 'a')
    this.#logStart = fstatSync(log).size
    try {
      this.#child = forkProgram(options.entry, {
        env: { ...process.env, ...options.job.placement?.env },
        stdio: ['ignore', log, log, 'ipc'],
        serialization: 'advanced',
      })
    } finally {
      closeSync(log)
    }
    this.#child.on('message', (message: FromWorker) => this.#receive(message))
    this.ended = this.#wait()
  }

  /** Asks the child to stop; kills it when it takes longer than the grace period. */
  stop(): void {
    if (this.#killTimer) return
    this.#send({ type: 'stop' })
    this.#killTimer = setTimeout(() => {
      this.#killed = true
      this.#child.kill('SIGKILL')
    }, this.#options.graceMs)
  }

  #receive(message: FromWorker): void {
    if (message.type === 'ready') {
      const identity = this.#child.pid === undefined ? undefined : identityOf(this.#child.pid)
      if (identity) this.#options.onStarted(identity)
      this.#send({ type: 'start', job: this.#options.job })
    } else if (message.type === 'event') {
      this.#options.onEvent(message.event)
    } else {
      this.#last = message
    }
  }

  #send(message: ToWorker): void {
    // A child that is gone already is reported by its end.
    if (this.#child.connected) this.#child.send(message, () => {})
  }

  async #wait(): Promise<ChildEnd> {
    const ending = await new Promise<{ code: number | null; signal: string | null; error?: Error }>(
      (resolve) => {
        this.#child.once('error', (error) => resolve({ code: null, signal: null, error }))
        // 'close' follows the last message, unlike 'exit'.
        this.#child.once('close', (code, signal) => resolve({ code, signal }))
      },
    )
    clearTimeout(this.#killTimer)
    const last = this.#last
    if (last?.type === 'succeeded' || last?.type === 'stopped' || last?.type === 'failed') return last
    if (this.#killed) return { type: 'killed' }
    return { type: 'failed', error: this.#crash(ending) }
  }

  #crash({ code, signal, error }: { code: number | null; signal: string | null; error?: Error }): JobFailure {
    const how = error
      ? `could not be started: ${error.message}`
      : signal
        ? `was ended by ${signal}${signal === 'SIGKILL' ? ' (by somebody, or because memory ran out)' : ''}`
        : `ended with exit code ${code}`
    const tail = readTail(this.#options.logFile, this.#logStart)
    return {
      kind: 'internal',
      code: 'worker_crashed',
      message: `The process of ${this.#options.job.id} ${how}.${tail ? ` Its log ends with:\n${tail}` : ''}`,
      param: null,
    }
  }
}

/** The end of what this child wrote, as whole lines. */
function readTail(file: string, start: number): string {
  const fd = openSync(file, 'r')
  try {
    const { size } = fstatSync(fd)
    const from = Math.max(start, size - LOG_TAIL_BYTES)
    const bytes = Buffer.alloc(Math.max(0, size - from))
    readSync(fd, bytes, 0, bytes.length, from)
    const text = bytes.toString('utf8')
    return (from > start ? text.slice(text.indexOf('\n') + 1) : text).trim()
  } catch {
    return ''
  } finally {
    closeSync(fd)
  }
}
