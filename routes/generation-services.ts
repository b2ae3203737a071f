/*
 * What the routes that generate need from the application; services.ts has the rest. Fields that the client left out are
 * undefined: the model's own defaults count.
 */

/** How to draw and when to end. */
export interface GenerationSettings {
  /** Answers to each prompt; 1 when left out. */
  n?: number
  maxTokens?: number
  minTokens?: number
  ignoreEos?: boolean
  temperature?: number
  topP?: number
  /** 0 switches it off. */
  topK?: number
  minP?: number
  repetitionPenalty?: number
  presencePenalty?: number
  frequencyPenalty?: number
  /** Added to logits, by token id in decimal. */
  logitBias?: Record<string, number>
  seed?: number
  /** At most four, none empty. */
  stop: string[]
  /** Tell log-probabilities, with this many of the likeliest tokens for each. */
  logprobs?: number
}

export interface ToolCall {
  id: string
  name: string
  /** JSON text, as the client sent it. */
  arguments: string
}

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | 'tool'
  content: string
  name?: string
  toolCallId?: string
  toolCalls?: ToolCall[]
  /** An earlier answer's reasoning. */
  reasoning?: string
}

export interface FunctionTool {
  name: string
  description?: string
  /** JSON Schema of the arguments. */
  parameters?: Record<string, unknown>
  strict?: boolean
}

/** A conversation and all that its template may show. */
export interface Conversation {
  model: string
  /** `developer` has become `system`; text parts are joined. */
  messages: ChatMessage[]
  tools?: FunctionTool[]
  toolChoice?: 'auto' | 'none' | 'required' | { name: string }
  parallelToolCalls?: boolean
  templateVariables?: Record<string, unknown>
  reasoningEffort?: string
}

export type ResponseFormat =
  | { type: 'json_object' }
  | { type: 'json_schema'; schema: Record<string, unknown>; strict: boolean }

export interface ChatRequest extends Conversation, GenerationSettings {
  /** What the answer is expected to be, for speed. */
  prediction?: string
  responseFormat?: ResponseFormat
}

export interface CompletionRequest extends GenerationSettings {
  model: string
  /** Each as text or as token ids; at least one. */
  prompts: (string | number[])[]
  /** Answer with the prompt in front. */
  echo: boolean
}

/** A token as it is shown; `bytes` tells what `token` cannot: half a character. */
export interface ShownToken {
  token: string
  bytes: number[]
  logprob: number
}

export interface ShownLogprob extends ShownToken {
  top: ShownToken[]
}

export interface GenerationUsage {
  promptTokens: number
  completionTokens: number
  /** Of the prompt's tokens, those that were not computed again. */
  cachedTokens: number
  /** Of the completion's tokens, those that were reasoning. */
  reasoningTokens: number
  /** Of the tokens that were guessed from a given prediction, those that came true and the others. */
  acceptedPredictionTokens: number
  rejectedPredictionTokens: number
}

/**
 * `start` comes first and exactly once, when the request is accepted: model loaded, template rendered, prompt inside the
 * context. Errors before it become an HTTP status, errors after it end the stream. Then each choice's parts, interleaved;
 * `text` pieces are whole characters and hold no stop string. Each choice has its `finish`; `usage` comes last of all.
 */
export type ChatEvent =
  | { type: 'start'; systemFingerprint: string }
  | { type: 'text'; choice: number; text: string; logprobs?: ShownLogprob[] }
  | { type: 'reasoning'; choice: number; text: string; logprobs?: ShownLogprob[] }
  /** `index` counts the calls of one choice. The call's arguments follow piece by piece. */
  | {
      type: 'tool_call'
      choice: number
      index: number
      id: string
      name: string
      logprobs?: ShownLogprob[]
    }
  | { type: 'tool_arguments'; choice: number; index: number; text: string; logprobs?: ShownLogprob[] }
  | { type: 'finish'; choice: number; reason: 'stop' | 'length' | 'tool_calls' }
  | { type: 'usage'; usage: GenerationUsage }

export interface ChatService {
  /** Generates. `signal` aborts when the client has gone; leaving the iteration early also ends the generation. */
  complete(request: ChatRequest, signal: AbortSignal): AsyncIterable<ChatEvent>
  /** The conversation as its template shows it to the model, and as tokens. Nothing is generated. */
  render(
    request: Conversation & { addGenerationPrompt: boolean },
    signal: AbortSignal,
  ): Promise<{ text: string; tokens: number[] }>
}

/** Choice i of prompt p has the number p · n + i. An echoed prompt's first token has the log-probability null. */
export type CompletionEvent =
  | { type: 'start'; systemFingerprint: string }
  | { type: 'text'; choice: number; text: string; logprobs?: CompletionLogprob[] }
  | { type: 'finish'; choice: number; reason: 'stop' | 'length' }
  | { type: 'usage'; usage: GenerationUsage }

export interface CompletionLogprob {
  token: string
  /** Of UTF-8; a token may be a part of a character. */
  bytes: readonly number[]
  logprob: number | null
  top: { token: string; logprob: number }[] | null
}

export interface CompletionService {
  complete(request: CompletionRequest, signal: AbortSignal): AsyncIterable<CompletionEvent>
}

export interface TextService {
  tokenize(
    request: { model: string; text: string; addSpecialTokens: boolean },
    signal: AbortSignal,
  ): Promise<{ tokens: number[]; texts: string[]; maxPositions: number }>
  detokenize(request: { model: string; tokens: number[] }, signal: AbortSignal): Promise<{ text: string }>
}

export interface EmbeddingService {
  /** One normalised vector for each input, as little-endian float32 in base64. */
  embed(
    request: { model: string; inputs: (string | number[])[] },
    signal: AbortSignal,
  ): Promise<{ vectors: string[]; promptTokens: number }>
}
