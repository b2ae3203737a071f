import type { ChildProcess } from 'node:child_process'
import { basename } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { EventQueue } from '../../engine/generate/event-queue.ts'
import { cancelledError, queueFullError } from '../../engine/generate/generation.ts'
import { DEFAULT_MAX_QUEUE, DEFAULT_MAX_RUNNING } from '../../engine/generate/scheduler.ts'
import { describePlacement, type Placement } from '../device/devices.ts'
import { explainOutOfMemory } from '../device/out-of-memory.ts'
import { forkProgram } from '../fork-program.ts'
import {
  type AnswerEvent,
  type CallKind,
  type EngineLimits,
  type EngineLoad,
  fromWireError,
  type GenerateRequest,
  type HostCommand,
  type HostReport,
  type ModelAnswer,
  type ModelAnswers,
  type ModelCall,
  type WireError,
} from './protocol.ts'

/** How long a child may take to release its model before it is killed. */
const UNLOAD_GRACE_MS = 5_000
/** The end of a crashed child's stderr that goes into the log. */
const STDERR_TAIL = 4_000
/** Calls that may wait for a child, beside its generations. */
const MAX_CALLS = 256
const UNLOADED = 'The model is being unloaded; the next request loads it again.'

/** Where a host tells what clients need not know; pino fits. */
export interface HostLogger {
  info(fields: object, message: string): void
  warn(fields: object, message: string): void
}

interface PendingCall {
  resolve(answer: ModelAnswer): void
  reject(error: EngineError): void
}

export interface EngineProcessOptions {
  baseFolder: string
  limits: EngineLimits
  /** Where it computes. */
  placement: Placement
  logger?: HostLogger
  /** Called when the last request in progress has ended. */
  onIdle(): void
  /** Called when the child has ended unexpectedly, or its device is gone. */
  onCrash(): void
  /** Called once, when the child is gone or going and takes no more requests. */
  onGone(): void
}

/** The server's side of one child process with one base model. */
export class EngineProcess {
  readonly baseFolder: string
  readonly #options: EngineProcessOptions
  readonly #child: ChildProcess
  readonly #exited: Promise<void>
  readonly #streams = new Map<number, EventQueue<AnswerEvent>>()
  readonly #calls = new Map<number, PendingCall>()
  #state: 'loading' | 'ready' | 'closing' = 'loading'
  #memoryBytes = 0
  #load: EngineLoad = { running: 0, waiting: 0, cacheUsage: 0 }
  #nextId = 1
  #stderr = ''

  /** Forks the child and lets it load; requests may be given at once and wait for it. */
  constructor(options: EngineProcessOptions) {
    this.baseFolder = options.baseFolder
    this.#options = options
    this.#child = forkProgram(new URL('./host.ts', import.meta.url), {
      env: { ...process.env, ...options.placement.env },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    this.#exited = new Promise((resolve) => {
      this.#child.on('error', (error) => this.#onExit(String(error), resolve))
      this.#child.once('exit', (code, signal) => this.#onExit(signal ?? `exit code ${code}`, resolve))
    })
    this.#child.on('message', (report: HostReport) => this.#onReport(report))
    this.#child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_TAIL)
    })
    const { baseFolder, limits, placement } = options
    this.#send({ type: 'load', baseFolder, limits: { ...limits, device: placement.device } })
    const fields = { baseFolder, pid: this.#child.pid, device: describePlacement(placement) }
    options.logger?.info(fields, 'engine process started')
  }

  get state(): 'loading' | 'ready' | 'closing' {
    return this.#state
  }

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Resident memory of the child as it last told. */
  get memoryBytes(): number {
    return this.#memoryBytes
  }

  /** What the child is at, as it last told; while it loads, everything waits. */
  get load(): EngineLoad {
    return this.#state === 'loading' ? { running: 0, waiting: this.#streams.size, cacheUsage: 0 } : this.#load
  }

  /** Requests that have not ended. */
  get activeRequests(): number {
    return this.#streams.size + this.#calls.size
  }

  /**
   * Starts a generation. Reading ends with cancelled when `signal` is aborted; the child stops within one step.
   * @throws EngineError at once: unavailable 'queue_full', or 'model_unloaded' after close().
   */
  generate(request: GenerateRequest, signal: AbortSignal): AsyncGenerator<AnswerEvent, void, void> {
    if (signal.aborted) throw cancelledError()
    if (this.#state === 'closing') throw new EngineError('unavailable', 'model_unloaded', UNLOADED)
    const { maxQueue = DEFAULT_MAX_QUEUE, maxRunning = DEFAULT_MAX_RUNNING } = this.#options.limits
    if (this.#streams.size >= maxRunning + maxQueue) throw queueFullError(maxQueue)
    const id = this.#nextId++
    const queue = new EventQueue<AnswerEvent>()
    this.#streams.set(id, queue)
    this.#send({ type: 'generate', id, request })
    const cancel = () => {
      if (!this.#streams.has(id)) return
      this.#send({ type: 'cancel', id })
      this.#endStream(id, cancelledError())
    }
    signal.addEventListener('abort', cancel, { once: true })
    return queue.read(() => {
      signal.removeEventListener('abort', cancel)
      cancel()
    })
  }

  /**
   * Asks the child a short question, once its model is loaded.
   * @throws EngineError what is wrong with the question; unavailable 'queue_full', or when the child ends.
   */
  call<K extends CallKind>(call: Extract<ModelCall, { kind: K }>): Promise<ModelAnswers[K]> {
    if (this.#state === 'closing') throw new EngineError('unavailable', 'model_unloaded', UNLOADED)
    if (this.#calls.size >= MAX_CALLS) throw queueFullError(MAX_CALLS)
    const id = this.#nextId++
    const answer = new Promise<ModelAnswer>((resolve, reject) => this.#calls.set(id, { resolve, reject }))
    this.#send({ type: 'call', id, call })
    return answer as Promise<ModelAnswers[K]>
  }

  /** Ends the child and, with `error`, the requests in progress. Resolves when the child is gone. */
  async close(error: EngineError): Promise<void> {
    this.#retire()
    this.#endAll(error)
    this.#send({ type: 'unload' })
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), UNLOAD_GRACE_MS)
    await this.#exited
    clearTimeout(timer)
  }

  #onReport(report: HostReport): void {
    switch (report.type) {
      case 'ready':
        this.#memoryBytes = report.memoryBytes
        if (this.#state === 'loading') this.#state = 'ready'
        if (report.fallbacks.length > 0) {
          const { baseFolder } = this
          this.#options.logger?.warn(
            { baseFolder, nodes: report.fallbacks },
            'the device leaves nodes to the CPU',
          )
        }
        return
      case 'failed': {
        const error = this.#errorOf(report.error)
        if (isOfDevice(error)) this.#options.onCrash()
        this.#options.logger?.warn({ baseFolder: this.baseFolder, err: error }, 'the model cannot be loaded')
        void this.close(error)
        return
      }
      case 'events':
        this.#memoryBytes = report.memoryBytes
        this.#load = report.load ?? this.#load
        for (const item of report.events) {
          if ('error' in item) this.#onError(item.id, this.#errorOf(item.error))
          else if ('answer' in item) this.#endCall(item.id, ({ resolve }) => resolve(item.answer))
          else this.#deliver(item.id, item.event)
        }
    }
  }

  /** A process whose device is gone is of no more use; the next request starts another. */
  #onError(id: number, error: EngineError): void {
    this.#end(id, error)
    if (!isOfDevice(error) || this.#state === 'closing') return
    this.#options.logger?.warn({ baseFolder: this.baseFolder, err: error }, 'the device was lost')
    this.#options.onCrash()
    void this.close(error)
  }

  #errorOf(error: WireError): EngineError {
    return explainOutOfMemory(fromWireError(error), this.#options.placement) as EngineError
  }

  #deliver(id: number, event: AnswerEvent): void {
    this.#streams.get(id)?.push(event)
    if (event.type === 'finish') this.#endStream(id)
  }

  #endAll(error: EngineError): void {
    for (const id of [...this.#streams.keys(), ...this.#calls.keys()]) this.#end(id, error)
  }

  #end(id: number, error: EngineError): void {
    if (this.#streams.has(id)) this.#endStream(id, error)
    else this.#endCall(id, ({ reject }) => reject(error))
  }

  #endCall(id: number, settle: (call: PendingCall) => void): void {
    const call = this.#calls.get(id)
    if (!call) return
    this.#calls.delete(id)
    settle(call)
    this.#toldIdle()
  }

  #endStream(id: number, error?: EngineError): void {
    const queue = this.#streams.get(id)
    if (!queue) return
    this.#streams.delete(id)
    if (error) queue.fail(error)
    else queue.end()
    this.#toldIdle()
  }

  #toldIdle(): void {
    if (this.activeRequests === 0 && this.#state !== 'closing') this.#options.onIdle()
  }

  #onExit(how: string, done: () => void): void {
    if (this.#state !== 'closing') {
      const { logger } = this.#options
      logger?.warn({ baseFolder: this.baseFolder, how, stderr: this.#stderr }, 'engine process ended')
      this.#retire()
      this.#options.onCrash()
    }
    const model = basename(this.baseFolder)
    const error = new EngineError(
      'unavailable',
      'engine_crashed',
      `The engine process of ${model} ended unexpectedly (${how}); the next request starts it again.`,
    )
    this.#endAll(error)
    done()
  }

  /** From here on the child takes no more requests. */
  #retire(): void {
    if (this.#state === 'closing') return
    this.#state = 'closing'
    this.#options.onGone()
  }

  #send(command: HostCommand): void {
    // A child that is gone answers with its exit event; there is nothing to add here.
    this.#child.send(command, () => {})
  }
}

function isOfDevice({ code }: EngineError): boolean {
  return code === 'device_lost' || code === 'device_unavailable'
}
