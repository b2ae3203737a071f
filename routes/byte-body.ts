import type { ServerResponse } from 'node:http'

/** Chunks that keep their bytes only until the next is asked for. */
type Chunks = AsyncIterator<Uint8Array>

/** What lies behind the bodies made here, for whoever can do better than read a stream. */
const bodies = new WeakMap<ReadableStream, Chunks>()

/**
 * Exactly `length` bytes as a response's body, read as fast as the client takes them. Chunks that turn out fewer or more
 * break the connection, so that it never looks complete. `release` is called once, whether the body ends, fails or is left.
 */
export function byteBody(
  source: AsyncIterable<Uint8Array>,
  length: number,
  release: () => void,
): ReadableStream<Uint8Array> {
  const chunks = new CountedChunks(source[Symbol.asyncIterator](), length, release)
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { done, value } = await chunks.next()
        if (done) controller.close()
        else controller.enqueue(value.slice()) // a queue may keep it for longer than it keeps its bytes
      },
      async cancel() {
        await chunks.return()
      },
    },
    { highWaterMark: 0 },
  )
  bodies.set(body, chunks)
  return body
}

class CountedChunks implements Chunks {
  readonly #chunks: Chunks
  readonly #length: number
  readonly #release: () => void
  #seen = 0

  constructor(chunks: Chunks, length: number, release: () => void) {
    this.#chunks = chunks
    this.#length = length
    this.#release = release
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    try {
      const result = await this.#chunks.next()
      this.#seen += result.value?.length ?? 0
      const isWrong = result.done ? this.#seen !== this.#length : this.#seen > this.#length
      if (isWrong) throw new Error(`${this.#length} bytes were promised, ${this.#seen} were read`)
      if (result.done) this.#release()
      return result
    } catch (error) {
      await this.return()
      throw error
    }
  }

  async return(): Promise<IteratorResult<Uint8Array>> {
    this.#release()
    await this.#chunks.return?.()
    return { done: true, value: undefined }
  }
}

/**
 * Writes a response whose body is one of those above straight to Node's, without the copies and queues of web streams:
 * each chunk is handed over to the kernel before the next is asked for.
 *
 * @returns false, with nothing done, for other bodies; else true, when the last byte is written or the client has gone.
 * @throws what reading throws, after breaking the connection.
 */
export async function writeDirectly(response: Response, outgoing: ServerResponse): Promise<boolean> {
  const chunks = response.body && bodies.get(response.body)
  if (!chunks) return false
  outgoing.writeHead(response.status, Object.fromEntries(response.headers))
  try {
    for (let result = await chunks.next(); !result.done; result = await chunks.next()) {
      if (!(await handOver(outgoing, result.value))) break
    }
    if (!outgoing.destroyed) outgoing.end()
  } catch (error) {
    outgoing.destroy()
    throw error
  } finally {
    await chunks.return?.()
  }
  return true
}

/** Resolves when the kernel has the bytes, or to false when the client has gone. */
function handOver(outgoing: ServerResponse, chunk: Uint8Array): Promise<boolean> {
  // Not of the response, which hears nothing where it still waits for the connection's earlier ones.
  const { socket } = outgoing.req
  if (outgoing.destroyed || socket.destroyed) return Promise.resolve(false)
  return new Promise((resolve) => {
    const leave = () => resolve(false)
    socket.setMaxListeners(0).once('close', leave) // one for each pipelined request
    outgoing.write(chunk, (error) => {
      socket.off('close', leave)
      resolve(!error)
    })
  })
}
