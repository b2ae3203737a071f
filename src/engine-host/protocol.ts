import { EngineError, type ErrorKind } from '../../engine/errors.ts'
import type { SamplingParams } from '../../engine/generate/sampling-params.ts'
import type { GenerationEvent } from '../../engine/generate/sequence.ts'
import type { ServedWeights } from '../../engine/generate/served-weights.ts'
import type { Device } from '../../engine/onnx/device.ts'
import type { TemplateMessage } from '../../engine/text/chat-template.ts'
import type { OutputPart } from '../../engine/text/output-parser.ts'
import type { TemplateChoice } from '../../engine/text/template-choice.ts'
import type { ToolChoice, ToolDefinition } from '../../engine/text/tools.ts'

/** What is to be answered: a conversation for the chat template, or a prompt as text or token ids. */
export type GenerateInput =
  | (ChatInput & { prompt?: undefined })
  | { prompt: string | readonly number[]; messages?: undefined }

/** One generation. Sampling values that are undefined come from the model's generation_config.json. */
export type GenerateRequest = GenerateInput &
  Partial<SamplingParams> & {
    /** The base model's folder; one child process serves all requests of one folder. */
    baseFolder: string
    /** A PEFT folder of an adapter for this base; undefined answers with the base. */
    adapterFolder?: string
    /** The chat template that training used; undefined is the base folder's own. */
    template?: string | TemplateChoice
    seed?: number
    stop?: readonly string[]
    /** Undefined generates up to the end of the context. */
    maxTokens?: number
    /** Tokens before which the answer does not end by itself. */
    minTokens?: number
    ignoreEos?: boolean
    /** Added to logits, by token id in decimal. */
    logitBias?: Readonly<Record<string, number>>
    /** Tell each token's log-probability, with this many of the likeliest beside it. */
    logprobs?: number
    /** What the answer is expected to be. */
    prediction?: string
    /** What the answer has to look like; tools are the conversation's own. */
    responseFormat?: ResponseFormat
  }

/** Everything that a chat template shows of a conversation. */
export interface ChatInput {
  messages: readonly TemplateMessage[]
  tools?: readonly ToolDefinition[]
  toolChoice?: ToolChoice
  parallelToolCalls?: boolean
  /** Variables of the template that a caller may set. */
  templateVariables?: Readonly<Record<string, unknown>>
  /** OpenAI's name for how much a model should think; only templates that know it take it. */
  reasoningEffort?: string
}

export type ResponseFormat =
  | { type: 'json_object' }
  | { type: 'json_schema'; schema: unknown; strict: boolean }

/** A token as OpenAI shows it. `bytes` tells what `token` cannot: half a character. */
export interface ShownToken {
  id: number
  token: string
  bytes: number[]
  logprob: number
}

export interface ShownLogprob extends ShownToken {
  top: ShownToken[]
}

/**
 * One step of an answer: what the engine generated, parted into text, reasoning and tool calls. `logprobs` are those of
 * the tokens drawn since the last part.
 */
export type AnswerEvent =
  | { type: 'start'; promptTokens: number }
  | (OutputPart & { logprobs?: ShownLogprob[] })
  | FinishEvent

export interface FinishEvent extends Omit<Extract<GenerationEvent, { type: 'finish' }>, 'reason'> {
  reason: 'stop' | 'length' | 'tool_calls'
  /** Of the completion's tokens, those that were reasoning. */
  reasoningTokens: number
}

/** A short question to a loaded model, answered between two steps of its generations. */
export type ModelCall =
  | { kind: 'tokenize'; text: string; addSpecialTokens: boolean }
  | { kind: 'detokenize'; tokens: readonly number[] }
  | ({ kind: 'render'; template?: string | TemplateChoice; addGenerationPrompt: boolean } & ChatInput)
  /** Mean-pooled, normalised last hidden states. */
  | { kind: 'embed'; input: string | readonly number[]; adapterFolder?: string }
  /** The log-probability of each token of a prompt after those before it. */
  | { kind: 'score'; prompt: string | readonly number[]; top: number; adapterFolder?: string }
  /** Have an adapter in memory before the first request for it, or let it go. */
  | { kind: 'loadAdapter'; adapterFolder: string }
  | { kind: 'unloadAdapter'; adapterFolder: string }

export type CallKind = ModelCall['kind']

export interface ModelAnswers {
  tokenize: { tokens: number[]; texts: string[]; maxPositions: number }
  detokenize: { text: string }
  render: { text: string; tokens: number[] }
  /** `vector`: little-endian float32 in base64. */
  embed: { vector: string; promptTokens: number }
  /** One for each token; the first has nothing before it, and `logprob` 0. */
  score: { text: string; tokens: ShownLogprob[] }
  /** Whether it was in memory before. */
  loadAdapter: { wasLoaded: boolean }
  unloadAdapter: { wasLoaded: boolean }
}

export type ModelAnswer = ModelAnswers[keyof ModelAnswers]

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
  /** What the model computes on; the CPU when left out. */
  device?: Device
  /** Threads of one run; undefined or 0 leaves the choice to the runtime. */
  threads?: number
  /** The longest context in tokens, when less than the model's own. */
  maxPositions?: number
  /** Requests that may wait, beyond those in progress. */
  maxQueue?: number
  /** Requests that share the batch. */
  maxRunning?: number
  /** Memory for keys and values of running requests, and of earlier ones. */
  kvBytes?: number
  prefixBytes?: number
  /** Whether a request that is alone guesses tokens ahead by what its text holds; where that changes nothing if left out. */
  promptLookup?: boolean
  /** Adapters that stay in memory. */
  maxAdapters?: number
  /** Whether adapters are ready for when the model is loaded, or with the first of them. */
  adapters?: 'plain' | 'none'
  /** How the base's weights are held. */
  weights?: ServedWeights
  /** Where packed weights are kept for the next load. */
  packedFolder?: string
}

/** From the server to the child. `load` comes first and once. */
export type HostCommand =
  | { type: 'load'; baseFolder: string; limits: EngineLimits }
  | { type: 'generate'; id: number; request: GenerateRequest }
  | { type: 'call'; id: number; call: ModelCall }
  | { type: 'cancel'; id: number }
  | { type: 'unload' }

/** One step of one generation, or the answer of a call; an error ends either. */
export type HostEvent =
  | { id: number; event: AnswerEvent }
  | { id: number; answer: ModelAnswer }
  | { id: number; error: WireError }

/** What a child is at, told with every message. */
export interface EngineLoad {
  running: number
  waiting: number
  /** The part of the cache's budget that is in use, 0 to 1. */
  cacheUsage: number
}

/** From the child to the server. `failed` says that the model cannot be loaded; the server then ends the child. */
export type HostReport =
  /** fallbacks: operations that the device leaves to the CPU, by name. */
  | { type: 'ready'; memoryBytes: number; fallbacks: readonly string[] }
  | { type: 'failed'; error: WireError }
  | { type: 'events'; events: HostEvent[]; memoryBytes: number; load?: EngineLoad }

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
