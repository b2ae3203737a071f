import { SSE } from 'sse.js'

/** What the server said was wrong, in its own words. */
class ApiError extends Error {
  readonly status: number
  readonly code: string | null
  readonly param: string | null

  constructor(status: number, error: { message?: string; code?: string | null; param?: string | null }) {
    super(error.message ?? `The server answered ${status}.`)
    this.status = status
    this.code = error.code ?? null
    this.param = error.param ?? null
  }
}

/** Nobody answered: the server is stopped or out of reach. */
export class Unreachable extends Error {
  constructor() {
    super('The server does not answer.')
  }
}

const KEY = 'anneal-api-key'

/** The API key of this tab, where the server asks for one. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? '',
  set: (key: string) => sessionStorage.setItem(KEY, key),
}

function headers(more: Record<string, string> = {}): Record<string, string> {
  const key = apiKey.get()
  return key === '' ? more : { authorization: `Bearer ${key}`, ...more }
}

async function request(
  method: string,
  path: string,
  init: { body?: BodyInit; headers?: Record<string, string> },
) {
  const response = await fetch(path, { method, body: init.body, headers: headers(init.headers) }).catch(
    () => {
      throw new Unreachable()
    },
  )
  if (response.ok) return response
  const body: unknown = await response.json().catch(() => ({}))
  throw new ApiError(response.status, (body as { error?: object }).error ?? {})
}

export async function get<T>(path: string): Promise<T> {
  return (await (await request('GET', path, {})).json()) as T
}

export async function getText(path: string): Promise<string> {
  return (await request('GET', path, {})).text()
}

export async function getBlob(path: string): Promise<Blob> {
  return (await request('GET', path, {})).blob()
}

export async function post<T>(path: string, body?: unknown): Promise<T> {
  const json =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }
  return (await (await request('POST', path, json)).json()) as T
}

/** A training configuration as YAML, or a form with a file. */
export async function postRaw<T>(path: string, body: string | FormData, type?: string): Promise<T> {
  return (await (
    await request('POST', path, { body, headers: type ? { 'content-type': type } : {} })
  ).json()) as T
}

export async function remove(path: string): Promise<void> {
  await request('DELETE', path, {})
}

export interface JobEvent {
  id: number
  type: string
  message: string
  created_at: number
  data: Record<string, unknown>
}

const RETRY_MS = 2_000
const JOB_EVENTS = [
  'queued',
  'started',
  'progress',
  'evaluation',
  'checkpoint',
  'log',
  'warning',
  'succeeded',
  'failed',
  'cancelled',
]
const LAST_EVENTS = new Set(['succeeded', 'failed', 'cancelled'])

/**
 * Follows a job's events: those that are stored, then live ones. When the server goes away it says so and tries again
 * after the last event it saw. Returns the function that ends it.
 */
export function followJob(
  path: string,
  on: { event(event: JobEvent): void; connected(up: boolean): void; end?(): void },
): () => void {
  let last = 0
  let ended = false
  let source: SSE | undefined
  let timer: number | undefined
  const open = () => {
    source = new SSE(path, { headers: headers(last > 0 ? { 'last-event-id': String(last) } : {}) })
    source.addEventListener('open', () => on.connected(true))
    for (const type of JOB_EVENTS) {
      source.addEventListener(type, (message: { data: string }) => {
        const event = JSON.parse(message.data) as JobEvent
        if (event.id <= last) return
        last = event.id
        on.event(event)
        if (LAST_EVENTS.has(event.type)) finish()
      })
    }
    source.addEventListener('error', retry)
    source.addEventListener('abort', () => {})
    source.addEventListener('readystatechange', (change: { readyState?: number }) => {
      if (change.readyState === 2) retry() // closed
    })
    source.stream()
  }
  const retry = () => {
    if (ended || timer !== undefined) return
    on.connected(false)
    timer = window.setTimeout(() => {
      timer = undefined
      source?.close()
      open()
    }, RETRY_MS)
  }
  const finish = () => {
    if (ended) return
    stop()
    on.end?.()
  }
  const stop = () => {
    ended = true
    window.clearTimeout(timer)
    source?.close()
  }
  open()
  return stop
}

export interface ChatToken {
  token: string
  logprob: number
  top_logprobs: { token: string; logprob: number }[]
}

interface ChatChunk {
  choices: {
    delta?: { content?: string | null; reasoning_content?: string | null }
    finish_reason?: string | null
    logprobs?: { content: ChatToken[] | null } | null
  }[]
  usage?: { completion_tokens: number; prompt_tokens: number } | null
  error?: { message: string }
}

/** Streams a chat answer. Ends with `done` or `failed`; the returned function stops the generation. */
export function streamChat(
  body: Record<string, unknown>,
  on: {
    text(text: string, tokens: ChatToken[]): void
    done(
      usage: { completion_tokens: number; prompt_tokens: number } | undefined,
      reason: string | undefined,
    ): void
    failed(message: string): void
  },
): () => void {
  let usage: { completion_tokens: number; prompt_tokens: number } | undefined
  let reason: string | undefined
  let over = false
  const payload = JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } })
  const source = new SSE('/v1/chat/completions', {
    headers: headers({ 'content-type': 'application/json' }),
    method: 'POST',
    payload,
  })
  const end = (work: () => void) => {
    if (over) return
    over = true
    source.close()
    work()
  }
  source.addEventListener('message', (message: { data: string }) => {
    if (message.data === '[DONE]') return end(() => on.done(usage, reason))
    const chunk = JSON.parse(message.data) as ChatChunk
    if (chunk.error) return end(() => on.failed(chunk.error!.message))
    const [choice] = chunk.choices
    const text = choice?.delta?.content ?? choice?.delta?.reasoning_content ?? ''
    const tokens = choice?.logprobs?.content ?? []
    if (text !== '' || tokens.length > 0) on.text(text, tokens)
    reason = choice?.finish_reason ?? reason
    if (chunk.usage) usage = chunk.usage
  })
  source.addEventListener('error', (event: { data?: string }) => end(() => on.failed(messageOf(event.data))))
  source.stream()
  return () => end(() => on.done(usage, 'stopped'))
}

function messageOf(data: string | undefined): string {
  try {
    const { error } = JSON.parse(data ?? '') as { error?: { message?: string } }
    if (error?.message) return error.message
  } catch {
    // No JSON: the connection itself failed.
  }
  return data ? data.slice(0, 300) : new Unreachable().message
}
