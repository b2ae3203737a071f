import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dirname, '../..')

/** `anneal serve` as its own process, on a free port, with the config file of a workspace. */
export class ServerProcess {
  readonly url: string
  private readonly child: ChildProcess

  private constructor(child: ChildProcess, url: string) {
    this.child = child
    this.url = url
  }

  /** Starts the server and waits until /health answers 200; its output goes to this process's stderr on failure. */
  static async start(workspace: string): Promise<ServerProcess> {
    const port = await freePort()
    const environment = {
      ...process.env,
      ANNEAL_CONFIG: join(workspace, 'anneal.config.ts'),
      ANNEAL_PORT: String(port),
    }
    const child = spawn(process.execPath, [join(root, 'bin/anneal.js'), 'serve'], {
      env: environment,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    for (const stream of [child.stdout, child.stderr])
      stream?.on('data', (chunk) => (output += String(chunk)))
    const url = `http://127.0.0.1:${port}`
    for (let attempt = 0; attempt < 300; attempt++) {
      if (child.exitCode !== null) break
      const healthy = await fetch(`${url}/health`).then(
        (response) => response.ok,
        () => false,
      )
      if (healthy) return new ServerProcess(child, url)
      await new Promise((done) => setTimeout(done, 100))
    }
    child.kill('SIGKILL')
    throw new Error(`the server did not start:\n${output}`)
  }

  /** Ends the process at once, as a power cut would. */
  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }

  /** Asks it to drain and waits. */
  async stop(): Promise<void> {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.kill('SIGTERM')
    await once(this.child, 'exit')
  }
}

/** A port that nobody listens on. */
export async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const address = probe.address()
  probe.close()
  await once(probe, 'close')
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

/** An HTTP client for what the OpenAI client has no method for. */
export class Api {
  private readonly url: string

  constructor(url: string) {
    this.url = url
  }

  /** GET, or POST when a body is given; throws with the envelope's message when the status is not 2xx. */
  async json<T>(path: string, body?: unknown): Promise<T> {
    const init =
      body === undefined
        ? {}
        : { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }
    const response = await fetch(`${this.url}${path}`, init)
    const content = await response.text()
    if (!response.ok) throw new Error(`${path}: ${response.status} ${content}`)
    return JSON.parse(content) as T
  }

  /** The bytes of a path. */
  async bytes(path: string): Promise<Uint8Array> {
    const response = await fetch(`${this.url}${path}`)
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    return new Uint8Array(await response.arrayBuffer())
  }

  /** Server-sent events after `lastId`, until the stream ends, breaks, or `until` says so. */
  async *events(path: string, lastId = 0): AsyncGenerator<ServerEvent> {
    const response = await fetch(`${this.url}${path}`, { headers: { 'last-event-id': String(lastId) } })
    if (!response.ok || !response.body) throw new Error(`${path}: ${response.status}`)
    const decoder = new TextDecoder()
    let pending = ''
    for await (const chunk of response.body) {
      pending += decoder.decode(chunk, { stream: true })
      const blocks = pending.split('\n\n')
      pending = blocks.pop() ?? ''
      for (const block of blocks) {
        const data = block
          .split('\n')
          .filter((line) => line.startsWith('data:'))
          .map((line) => line.slice(5).trim())
          .join('\n')
        if (data !== '') yield JSON.parse(data) as ServerEvent
      }
    }
  }
}

export interface ServerEvent {
  id: number
  type: string
  message: string
  data: Record<string, unknown>
}
