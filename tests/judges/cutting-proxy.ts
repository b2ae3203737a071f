import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Passes requests on, and cuts or holds the first body that was asked for by range. */
export class CuttingProxy {
  /** The Range header of every request that had one, in order. */
  readonly ranges: string[] = []
  /** Resolves when the body is cut or held. */
  readonly reached: Promise<void>
  readonly #server: Server
  #onReached = () => {}
  #isDone = false

  private constructor(target: string, how: 'cut' | 'hold', after: number) {
    this.reached = new Promise((resolve) => {
      this.#onReached = resolve
    })
    this.#server = createServer((incoming, outgoing) => this.#pass(target, how, after, incoming, outgoing))
  }

  /** @param after bytes of the body that get through. */
  static async start(target: string, how: 'cut' | 'hold', after: number): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target, how, after)
    proxy.#server.listen(0, '127.0.0.1')
    await once(proxy.#server, 'listening')
    return proxy
  }

  /** Name and port, as they stand in an image's name. */
  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }

  #pass(
    target: string,
    how: 'cut' | 'hold',
    after: number,
    { method, url, headers }: IncomingMessage,
    outgoing: ServerResponse,
  ): void {
    if (headers.range) this.ranges.push(headers.range)
    const isFirst = headers.range !== undefined && !this.#isDone
    const asked = request(`${target}${url}`, { method, headers }, (incoming) => {
      outgoing.writeHead(incoming.statusCode!, incoming.headers)
      if (!isFirst || Number(incoming.headers['content-length']) <= after) {
        incoming.pipe(outgoing)
        return
      }
      this.#isDone = true
      let passed = 0
      incoming.on('data', (chunk: Buffer) => {
        const part = chunk.subarray(0, after - passed)
        if (part.length > 0) outgoing.write(part)
        passed += part.length
        if (passed < after) return
        incoming.destroy()
        // What was written must have left before the connection ends.
        if (how === 'cut') outgoing.write('', () => outgoing.destroy())
        this.#onReached()
      })
    })
    asked.on('error', () => outgoing.destroy())
    outgoing.on('close', () => asked.destroy())
    asked.end()
  }
}
