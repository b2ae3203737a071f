import { createRoute, OpenAPIHono } from '@hono/zod-openapi'
import { defaultHook } from './errors.ts'
import { accept, endedEarly, type Identity, rest, sendChunks, toSettings, toUsage } from './generation.ts'
import type {
  CompletionEvent,
  CompletionLogprob,
  CompletionRequest,
  CompletionService,
} from './generation-services.ts'
import { errors, jsonBody, missing } from './responses.ts'
import {
  type Completion,
  type CompletionBody,
  type CompletionChunk,
  completion,
  completionChunk,
  completionRequest,
} from './schemas/completions.ts'
import { followRequest, type StreamSettings } from './sse.ts'

/** OpenAI's own default for completions. */
const DEFAULT_MAX_TOKENS = 16

const complete = createRoute({
  method: 'post',
  path: '/v1/completions',
  tags: ['Chat'],
  summary: 'Go on with a text',
  description: 'Without a chat template: the prompt goes to the model as it is, as text or as token ids.',
  request: { body: jsonBody(completionRequest) },
  responses: {
    200: {
      description: 'The continuations; with `stream`, server-sent chunks that end with `data: [DONE]`.',
      content: {
        'application/json': { schema: completion },
        'text/event-stream': { schema: completionChunk },
      },
    },
    ...errors,
    ...missing,
  },
})

type Choice = Completion['choices'][number]
type Logprobs = NonNullable<Choice['logprobs']>

function toPrompts(prompt: CompletionBody['prompt']): (string | number[])[] {
  if (typeof prompt === 'string') return [prompt]
  return typeof prompt[0] === 'number' ? [prompt as number[]] : (prompt as (string | number[])[])
}

function toCompletionRequest(body: CompletionBody): CompletionRequest {
  return {
    model: body.model,
    prompts: toPrompts(body.prompt),
    echo: body.echo ?? false,
    ...toSettings(body),
    maxTokens: body.max_tokens ?? DEFAULT_MAX_TOKENS,
    logprobs: body.logprobs ?? undefined,
  }
}

/** Log-probabilities in OpenAI's older form, with the character (code point) of the choice's text at which each token begins. */
class LogprobWriter {
  /** Characters of the text so far; a token in the middle of one begins where that one does. */
  #characters = 0
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true })

  write(entries: readonly CompletionLogprob[] | undefined, text: string): Logprobs | null {
    if (entries === undefined) return null
    const written: Logprobs = { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] }
    for (const { token, bytes, logprob, top } of entries) {
      written.tokens.push(token)
      written.token_logprobs.push(logprob)
      // The token itself is always among them, as with OpenAI.
      const shown = top && [...top, { token, logprob: logprob! }]
      written.top_logprobs!.push(
        shown && Object.fromEntries(shown.map((other) => [other.token, other.logprob])),
      )
      written.text_offset.push(this.#characters)
      this.#characters += charactersIn(this.#decoder.decode(Uint8Array.from(bytes), { stream: true }))
    }
    if (entries[0]?.logprob === null) this.#alignEcho(written, charactersIn(text))
    return written
  }

  /** A prompt's tokens may begin with a mark or a blank that its text does not have. */
  #alignEcho(written: Logprobs, characters: number): void {
    const surplus = Math.max(0, this.#characters - characters)
    written.text_offset = written.text_offset.map((offset) => Math.max(0, offset - surplus))
    this.#characters -= surplus
  }
}

const charactersIn = (text: string) => [...text].length

function join(all: Logprobs | null, more: Logprobs | null): Logprobs | null {
  if (all === null || more === null) return all ?? more
  return {
    tokens: [...all.tokens, ...more.tokens],
    token_logprobs: [...all.token_logprobs, ...more.token_logprobs],
    top_logprobs: [...all.top_logprobs!, ...more.top_logprobs!],
    text_offset: [...all.text_offset, ...more.text_offset],
  }
}

async function collect(
  events: AsyncIterator<CompletionEvent>,
  identity: Identity,
  count: number,
): Promise<Completion> {
  const choices = Array.from(
    { length: count },
    (_, index): Choice => ({ index, text: '', logprobs: null, finish_reason: 'stop' }),
  )
  const writers = choices.map(() => new LogprobWriter())
  for await (const event of rest(events)) {
    if (event.type === 'usage') {
      return { ...identity, object: 'text_completion', choices, usage: toUsage(event.usage) }
    }
    if (event.type === 'start') continue
    const choice = choices[event.choice]!
    if (event.type === 'finish') choice.finish_reason = event.reason
    else {
      choice.text += event.text
      choice.logprobs = join(choice.logprobs, writers[event.choice]!.write(event.logprobs, event.text))
    }
  }
  throw endedEarly()
}

async function* chunksOf(
  events: AsyncIterator<CompletionEvent>,
  identity: Identity,
  count: number,
  includeUsage: boolean,
): AsyncGenerator<CompletionChunk> {
  const writers = Array.from({ length: count }, () => new LogprobWriter())
  const base = { ...identity, object: 'text_completion' as const }
  const chunk = (choice: CompletionChunk['choices'][number]): CompletionChunk => ({
    ...base,
    choices: [choice],
    ...(includeUsage ? { usage: null } : {}),
  })
  for await (const event of rest(events)) {
    if (event.type === 'usage') {
      if (includeUsage) yield { ...base, choices: [], usage: toUsage(event.usage) }
      return
    }
    if (event.type === 'text') {
      const logprobs = writers[event.choice]!.write(event.logprobs, event.text)
      yield chunk({ index: event.choice, text: event.text, logprobs, finish_reason: null })
    } else if (event.type === 'finish') {
      yield chunk({ index: event.choice, text: '', logprobs: null, finish_reason: event.reason })
    }
  }
  throw endedEarly()
}

/** /v1/completions, as OpenAI's clients and evaluation harnesses know it. */
export function completionRoutes(service: CompletionService, streams: StreamSettings): OpenAPIHono {
  return new OpenAPIHono({ defaultHook }).openapi(complete, async (c) => {
    const body = c.req.valid('json')
    const abort = followRequest(c)
    const request = toCompletionRequest(body)
    const events = service.complete(request, abort.signal)[Symbol.asyncIterator]()
    const identity = await accept(events, 'cmpl', body.model)
    const choices = request.prompts.length * (request.n ?? 1)
    if (!body.stream) return c.json(await collect(events, identity, choices), 200)
    const includeUsage = body.stream_options?.include_usage ?? false
    return sendChunks(c, chunksOf(events, identity, choices, includeUsage), abort, streams)
  })
}
