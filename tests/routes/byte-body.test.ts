import { once } from 'node:events'
import { createServer, type IncomingMessage, request, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { byteBody, writeDirectly } from '../../routes/byte-body.ts'

let server: Server | undefined
afterEach(() => server?.close())

/** One buffer for all chunks, as files are read: whoever keeps a chunk for too long sees the next. */
async function* chunksOf(count: number, size: number): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(size)
  for (let i = 0; i < count; i++) yield buffer.fill(i)
}

const expected = (count: number, size: number) =>
  Buffer.concat(Array.from({ length: count }, (_, i) => Buffer.alloc(size, i)))

/** Serves one body and gives the client's view of it, with what writing it came to. */
async function download(body: ReadableStream<Uint8Array>, length: number) {
  const results: Promise<boolean>[] = []
  server = createServer((_, outgoing) => {
    const response = new Response(body, { status: 206, headers: { 'content-length': String(length) } })
    const result = writeDirectly(response, outgoing)
    result.catch(() => {})
    results.push(result)
  }).listen(0)
  await once(server, 'listening')
  const asked = request({ port: (server.address() as AddressInfo).port, agent: false }).end()
  const [incoming] = (await once(asked, 'response')) as [IncomingMessage]
  return { incoming, result: () => results[0]! }
}

async function bytesOf(incoming: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of incoming) parts.push(part as Buffer)
  return Buffer.concat(parts)
}

describe('byteBody', () => {
  it('is a stream for whoever reads it as one, whose chunks stay as they are', async () => {
    const release = vi.fn()
    const response = new Response(byteBody(chunksOf(5, 1000), 5000, release))
    expect(Buffer.from(await response.arrayBuffer()).equals(expected(5, 1000))).toBe(true)
    expect(release).toHaveBeenCalled()
  })
})

describe('writeDirectly', () => {
  it('writes the bytes of such a body, each chunk before it is overwritten', async () => {
    const release = vi.fn()
    const { incoming, result } = await download(
      byteBody(chunksOf(40, 300_000), 12_000_000, release),
      12_000_000,
    )
    expect(incoming.statusCode).toBe(206)
    expect((await bytesOf(incoming)).equals(expected(40, 300_000))).toBe(true)
    expect(await result()).toBe(true)
    expect(release).toHaveBeenCalled()
  })

  it('leaves other bodies alone', async () => {
    expect(await writeDirectly(new Response('text'), {} as never)).toBe(false)
    expect(await writeDirectly(new Response(null), {} as never)).toBe(false)
  })

  it('breaks the connection of a body that is too short', async () => {
    const release = vi.fn()
    const { incoming, result } = await download(byteBody(chunksOf(3, 1000), 5000, release), 5000)
    await expect(bytesOf(incoming)).rejects.toThrow('aborted')
    await expect(result()).rejects.toThrow('5000 bytes were promised, 3000 were read')
    expect(release).toHaveBeenCalled()
  })

  it('releases what waits behind another answer when the connection ends', async () => {
    const release = vi.fn()
    const results: Promise<boolean>[] = []
    server = createServer((_, outgoing) => {
      results.push(writeDirectly(new Response(byteBody(chunksOf(1e6, 1 << 20), 2 ** 40, release)), outgoing))
    }).listen(0)
    await once(server, 'listening')
    const socket = connect((server.address() as AddressInfo).port)
    socket.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(20))
    await once(socket, 'data')
    await vi.waitFor(() => expect(results.length).toBe(20))
    socket.destroy()
    expect(await Promise.all(results)).toEqual(Array(20).fill(true))
    expect(release.mock.calls.length).toBeGreaterThanOrEqual(20)
  })

  it('stops and releases when the client goes away', async () => {
    const release = vi.fn()
    const { incoming, result } = await download(byteBody(chunksOf(1e6, 1 << 20), 2 ** 40, release), 2 ** 40)
    incoming.destroy()
    expect(await result()).toBe(true)
    expect(release).toHaveBeenCalled()
  })
})
