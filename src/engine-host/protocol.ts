import { EngineError, type ErrorKind } from '../../engine/errors.ts'
import type { SamplingParams } from '../../engine/generate/sampling-params.ts'
import type { GenerationEvent } from '../../engine/generate/sequence.ts'
import type { TemplateMessage } from '../../engine/text/chat-template.ts'

/** What is to be answered: a conversation for the chat template, or a prompt as text or token ids. */
export type GenerateInput =
  | { messages: readonly TemplateMessage[]; prompt?: undefined }
  | { prompt: string | readonly number[]; messages?: undefined }

/** One generation. Sampling values that are undefined come from the model's generation_config.json. */
export type GenerateRequest = GenerateInput &
  Partial<SamplingParams> & {
    /** The base model's folder; one child process serves all requests of one folder. */
    baseFolder: string
    /** A PEFT folder of an adapter for this base; undefined answers with the base. */
    adapterFolder?: string
    /** The chat template by the name that training used for it; undefined is the base folder's own. */
    template?: string
    seed?: number
    stop?: readonly string[]
    /** Undefined generates up to the end of the context. */
    maxTokens?: number
    ignoreEos?: boolean
  }

/** An error as it crosses the process border. `stack` is for the log and never for a client. */
export interface WireError {
  kind: ErrorKind
  code: string
  message: string
  param?: string
  stack?: string
}

/** How the child loads its model and queues for it. */
export interface EngineLimits {
  /** Threads of one run; undefined or 0 leaves the choice to the runtime. */
  threads?: number
  /** The longest context in tokens, when less than the model's own. */
  maxPositions?: number
  /** Requests that may wait, beyond those in progress. */
  maxQueue?: number
}

/** From the server to the child. `load` comes first and once. */
export type HostCommand =
  | { type: 'load'; baseFolder: string; limits: EngineLimits }
  | { type: 'generate'; id: number; request: GenerateRequest }
  | { type: 'cancel'; id: number }
  | { type: 'unload' }

/** One step of one generation; an error ends it. */
export type HostEvent = { id: number; event: GenerationEvent } | { id: number; error: WireError }

/** From the child to the server. `failed` says that the model cannot be loaded; the server then ends the child. */
export type HostReport =
  | { type: 'ready'; memoryBytes: number }
  | { type: 'failed'; error: WireError }
  | { type: 'events'; events: HostEvent[]; memoryBytes: number }

/** An error in the form that crosses the border; what was not thrown on purpose is told in general terms only. */
export function toWireError(error: unknown): WireError {
  if (error instanceof EngineError) {
    const { kind, code, message, param } = error
    return { kind, code, message, param }
  }
  const stack = error instanceof Error ? error.stack : String(error)
  return { kind: 'internal', code: 'engine_failed', message: 'The engine failed unexpectedly.', stack }
}

export function fromWireError({ kind, code, message, param, stack }: WireError): EngineError {
  return new EngineError(kind, code, message, { param, cause: stack })
}
