import type { Context } from 'hono'
import { toHttpError } from './errors.ts'
import type { JobEvent } from './schemas/jobs.ts'

export interface StreamSettings {
  /** Pause between keep-alive comments. */
  keepAliveMs: number
  /** Hears of errors in the middle of a stream that nobody threw on purpose. */
  onError(c: Context, cause: unknown): void
}

const encoder = new TextEncoder()
const keepAlive = encoder.encode(': keep-alive\n\n')

/** One frame of unnamed data, as OpenAI's clients read it. */
export const dataFrame = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`

/** One job event with its id, so that a reader can go on after it with Last-Event-ID. */
export const eventFrame = (event: JobEvent): string =>
  `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`

/** An error in the middle of a stream as the data of a frame: the status has been sent, so the stream has to say it. */
export function errorFrame(c: Context, error: unknown, { onError }: StreamSettings): string {
  const { body, expected } = toHttpError(error)
  if (!expected) onError(c, error)
  return dataFrame(body)
}

/** Resolves to the next frame, or to 'silence' when none came in time. The frame stays pending then. */
async function nextOrSilence<T>(pending: Promise<T>, ms: number): Promise<T | 'silence'> {
  let timer: NodeJS.Timeout | undefined
  const silence = new Promise<'silence'>((resolve) => {
    timer = setTimeout(() => resolve('silence'), ms)
  })
  try {
    return await Promise.race([pending, silence])
  } finally {
    clearTimeout(timer)
  }
}

/**
 * A body that takes a frame only when the client has room for it, and sends a comment when nothing came for `keepAliveMs`.
 * When the client goes, `abort` ends the source.
 */
function frameStream(
  frames: AsyncIterator<string>,
  abort: AbortController,
  keepAliveMs: number,
): ReadableStream<Uint8Array> {
  let pending: Promise<IteratorResult<string>> | undefined
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        pending ??= frames.next()
        const next = await nextOrSilence(pending, keepAliveMs)
        if (next === 'silence') return controller.enqueue(keepAlive)
        pending = undefined
        if (next.done) controller.close()
        else controller.enqueue(encoder.encode(next.value))
      },
      cancel() {
        abort.abort()
        // The source may answer the abort with an error, which nobody waits for any more.
        pending?.catch(() => {})
        frames.return?.().catch(() => {})
      },
    },
    { highWaterMark: 0 },
  )
}

/** Answers with a stream of server-sent events. `frames` should not throw: once the headers are out, errors are frames. */
export function sendEvents(
  c: Context,
  frames: AsyncIterator<string>,
  abort: AbortController,
  keepAliveMs: number,
): Response {
  return c.body(frameStream(frames, abort, keepAliveMs), 200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
  })
}

/** An abort controller that also follows the request's own signal, which aborts when the client disconnects. */
export function followRequest(c: Context): AbortController {
  const controller = new AbortController()
  const { signal } = c.req.raw
  if (signal.aborted) controller.abort()
  else signal.addEventListener('abort', () => controller.abort(), { once: true })
  return controller
}
