import { statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { cancelledError } from '../../engine/generate/generation.ts'
import { ON_CPU, type Placement } from '../device/devices.ts'
import { EngineProcess, type HostLogger } from './engine-process.ts'
import type {
  AnswerEvent,
  CallKind,
  EngineLimits,
  EngineLoad,
  GenerateRequest,
  ModelAnswers,
  ModelCall,
} from './protocol.ts'

export interface EngineHostsOptions extends EngineLimits {
  /** Minutes without a request after which a model is unloaded; Infinity keeps it. 5 by default. */
  idleMinutes?: number
  /** Base models in memory at the same time; 1 by default. Another one takes the place of the longest unused. */
  maxLoaded?: number
  /** How the weights of single models are held, where not as `weights` says. */
  weightsOf?: (baseFolder: string) => EngineLimits['weights']
  /** Where a model computes, decided when it is loaded; on the CPU when left out. */
  placeOf?: (baseFolder: string) => Promise<ServedPlacement>
  /** Told when the process of a placement has ended, or was not needed after all. */
  onReleased?: (placement: Placement) => void
  /** Told when the process of a model has ended unexpectedly, or its device is gone. */
  onCrash?: (placement: Placement) => void
  logger?: HostLogger
}

/** A placement, with the limits that follow from it. */
export interface ServedPlacement extends Placement {
  limits?: Pick<EngineLimits, 'kvBytes'>
}

/** A base model that is in memory or on its way there. */
export interface LoadedEngine {
  baseFolder: string
  state: 'loading' | 'ready' | 'closing'
  /** Such as cpu or cuda:1. */
  device: string
  pid: number | undefined
  /** Resident memory of the process as it last told; 0 while loading. */
  memoryBytes: number
  activeRequests: number
  load: EngineLoad
  lastUsedAt: Date
}

interface Entry {
  process: EngineProcess
  device: string
  /** Of the folder, as it was loaded. */
  version: string
  lastUsedAt: Date
  idleTimer?: NodeJS.Timeout
}

const UNLOADED = 'The model was unloaded while it answered; the next request loads it again.'
const REPLACED = "The model's folder was written anew while it answered; the next request loads it."
const SHUTTING_DOWN = 'The server is shutting down.'

/** setTimeout's longest delay; beyond it a timer would fire at once. */
const LONGEST_TIMEOUT_MS = 2 ** 31 - 1

/**
 * The server's way to the engine: one child process per base model, started by its first request, restarted after a
 * crash by the next one, and unloaded after a time without requests.
 */
export class EngineHosts {
  readonly #options: EngineHostsOptions
  readonly #entries = new Map<string, Entry>()
  /** Children on their way out; close() waits for these too. */
  readonly #leaving = new Set<Promise<void>>()
  #closed = false

  constructor(options: EngineHostsOptions = {}) {
    this.#options = options
  }

  /**
   * Generates an answer. The events begin with 'start', once the model is loaded and the prompt fits, and end with
   * 'finish'. Nothing happens before the first read; to stop reading, or to abort `signal`, ends the generation within
   * one step.
   * @throws EngineError while reading: what is wrong with the request or the model; unavailable when the queue is full,
   * other models take all places, the child crashed or the server shuts down; cancelled after an abort.
   */
  async *generate(
    request: GenerateRequest,
    signal: AbortSignal = new AbortController().signal,
  ): AsyncGenerator<AnswerEvent, void, void> {
    yield* await this.#withProcess(resolve(request.baseFolder), signal, (process) =>
      process.generate(request, signal),
    )
  }

  /**
   * Asks a model a short question, once it is loaded.
   * @throws EngineError as generate does.
   */
  async call<K extends CallKind>(
    baseFolder: string,
    call: Extract<ModelCall, { kind: K }>,
    signal: AbortSignal = new AbortController().signal,
  ): Promise<ModelAnswers[K]> {
    const pending = await this.#withProcess(resolve(baseFolder), signal, (process) => ({
      answer: process.call(call),
    }))
    return pending.answer
  }

  /** The models in memory. */
  loaded(): LoadedEngine[] {
    return [...this.#entries.values()].map(({ process, device, lastUsedAt }) => ({
      baseFolder: process.baseFolder,
      state: process.state,
      device,
      pid: process.pid,
      memoryBytes: process.memoryBytes,
      activeRequests: process.activeRequests,
      load: process.load,
      lastUsedAt,
    }))
  }

  /** Takes a model out of memory, for instance before its folder is deleted; its requests in progress end. */
  async unload(baseFolder: string): Promise<void> {
    const entry = this.#entries.get(resolve(baseFolder))
    if (entry) await this.#close(entry, 'model_unloaded', UNLOADED)
  }

  /** Ends all children; requests in progress end with an error, later ones are refused. */
  async close(): Promise<void> {
    this.#closed = true
    for (const entry of [...this.#entries.values()]) {
      void this.#close(entry, 'shutting_down', SHUTTING_DOWN)
    }
    await Promise.all(this.#leaving)
  }

  /** Hands a request to the folder's child, for which it makes room and starts it when there is none. */
  async #withProcess<T>(
    baseFolder: string,
    signal: AbortSignal,
    ask: (process: EngineProcess) => T,
  ): Promise<T> {
    for (;;) {
      if (signal.aborted) throw cancelledError()
      if (this.#closed) throw new EngineError('unavailable', 'shutting_down', SHUTTING_DOWN)
      const entry = this.#entries.get(baseFolder)
      if (entry && entry.version !== versionOf(baseFolder)) {
        await this.#close(entry, 'model_unloaded', REPLACED)
        continue
      }
      if (entry) {
        const asked = ask(entry.process)
        clearTimeout(entry.idleTimer)
        entry.lastUsedAt = new Date()
        return asked
      }
      if (this.#isFull()) {
        if (this.#leaving.size === 0) void this.#close(this.#leastRecentlyUsed(), 'model_unloaded', UNLOADED)
        await Promise.race(this.#leaving)
        continue
      }
      const placement = (await this.#options.placeOf?.(baseFolder)) ?? ON_CPU
      // Meanwhile another request may have started it, or another model, or the server may end.
      if (!this.#closed && !this.#entries.has(baseFolder) && !this.#isFull())
        this.#load(baseFolder, placement)
      else this.#options.onReleased?.(placement)
    }
  }

  /** Whether all places are taken, also by children that are still on their way out. */
  #isFull(): boolean {
    return this.#entries.size + this.#leaving.size >= (this.#options.maxLoaded ?? 1)
  }

  #load(baseFolder: string, placement: ServedPlacement): void {
    const {
      idleMinutes: _,
      maxLoaded: __,
      weightsOf,
      placeOf: ___,
      onReleased,
      onCrash,
      logger,
      ...limits
    } = this.#options
    const entry: Entry = {
      lastUsedAt: new Date(),
      version: versionOf(baseFolder),
      device: placement.name,
      process: new EngineProcess({
        baseFolder,
        limits: { ...limits, ...placement.limits, weights: weightsOf?.(baseFolder) ?? limits.weights },
        placement,
        logger,
        onIdle: () => this.#startIdleTimer(entry),
        onCrash: () => onCrash?.(placement),
        onGone: () => {
          this.#forget(entry)
          onReleased?.(placement)
        },
      }),
    }
    this.#entries.set(baseFolder, entry)
  }

  /** The model without requests whose last one is longest ago. */
  #leastRecentlyUsed(): Entry {
    const idle = [...this.#entries.values()].filter(({ process }) => process.activeRequests === 0)
    idle.sort((a, b) => a.lastUsedAt.getTime() - b.lastUsedAt.getTime())
    if (idle[0]) return idle[0]
    throw new EngineError(
      'unavailable',
      'models_busy',
      'Another model is answering and there is no room for a second one; try again shortly.',
    )
  }

  #startIdleTimer(entry: Entry): void {
    clearTimeout(entry.idleTimer)
    entry.lastUsedAt = new Date()
    const delay = (this.#options.idleMinutes ?? 5) * 60_000
    if (delay > LONGEST_TIMEOUT_MS) return
    const unload = () => {
      this.#options.logger?.info({ baseFolder: entry.process.baseFolder }, 'idle model unloaded')
      void this.#close(entry, 'model_unloaded', UNLOADED)
    }
    entry.idleTimer = setTimeout(unload, delay).unref()
  }

  #close(entry: Entry, code: string, message: string): Promise<void> {
    const leaving = entry.process
      .close(new EngineError('unavailable', code, message))
      .finally(() => this.#leaving.delete(leaving))
    this.#leaving.add(leaving)
    return leaving
  }

  #forget(entry: Entry): void {
    clearTimeout(entry.idleTimer)
    if (this.#entries.get(entry.process.baseFolder) === entry) {
      this.#entries.delete(entry.process.baseFolder)
    }
  }
}

/** Changes when a model is written into the folder anew, as a run with overwrite_output_dir does. */
function versionOf(baseFolder: string): string {
  const info = statSync(join(baseFolder, 'config.json'), { throwIfNoEntry: false })
  return `${info?.ino}:${info?.size}:${info?.mtimeMs}`
}
