import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePort } from '../e2e/server.ts'

export interface OllamaMessage {
  role: string
  content: string
  thinking?: string
}

export interface OllamaToken {
  token: string
  logprob: number
}

export interface OllamaAnswer {
  message: OllamaMessage
  done_reason: string
  prompt_eval_count: number
  /** Left out of an answer without tokens. */
  logprobs?: OllamaToken[]
}

/** Ollama's server with everything that it keeps in one folder, and its command line beside it. */
export class OllamaProcess {
  /** Where it keeps models. */
  readonly models: string
  readonly #program: string
  readonly #child: ChildProcess
  readonly #environment: NodeJS.ProcessEnv
  readonly #url: string

  private constructor(program: string, child: ChildProcess, environment: NodeJS.ProcessEnv, url: string) {
    this.#program = program
    this.#child = child
    this.#environment = environment
    this.#url = url
    this.models = environment.OLLAMA_MODELS!
  }

  static async start(program: string, folder: string): Promise<OllamaProcess> {
    mkdirSync(folder, { recursive: true })
    const url = `http://127.0.0.1:${await freePort()}`
    const environment = {
      ...process.env,
      HOME: folder,
      OLLAMA_HOST: url,
      OLLAMA_MODELS: join(folder, 'models'),
      OLLAMA_NUM_PARALLEL: '1',
    }
    const child = spawn(program, ['serve'], { env: environment, stdio: 'ignore' })
    for (let attempt = 0; attempt < 300 && child.exitCode === null; attempt++) {
      const answers = await fetch(url).then(
        ({ ok }) => ok,
        () => false,
      )
      if (answers) return new OllamaProcess(program, child, environment, url)
      await new Promise((done) => setTimeout(done, 100))
    }
    child.kill('SIGKILL')
    throw new Error(`${program} serve did not start`)
  }

  /** Ends it at once, as a power cut would, or lets it end what it runs. */
  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return
    this.#child.kill(signal)
    await once(this.#child, 'exit')
  }

  /** Runs `ollama …`; resolves to what it printed. @throws with what it printed, when it fails. */
  async command(args: readonly string[], cwd?: string): Promise<string> {
    const options = { env: this.#environment, cwd }
    const { stdout, stderr } = await promisify(execFile)(this.#program, args, options)
    return stdout + stderr
  }

  async post(path: string, body: object): Promise<Record<string, unknown>> {
    const response = await fetch(`${this.#url}/api/${path}`, { method: 'POST', body: JSON.stringify(body) })
    const answer = (await response.json()) as Record<string, unknown>
    if (!response.ok || answer.error) throw new Error(`/api/${path}: ${String(answer.error)}`)
    return answer
  }

  /** The prompt that it makes of a conversation. */
  async prompt(model: string, messages: readonly OllamaMessage[], more: object = {}): Promise<string> {
    const body = { model, messages, stream: false, _debug_render_only: true, ...more }
    const { _debug_info } = (await this.post('chat', body)) as { _debug_info: { rendered_template: string } }
    return _debug_info.rendered_template
  }

  /** Its greedy answer of at most `count` tokens. */
  async answer(
    model: string,
    messages: readonly OllamaMessage[],
    count: number,
    more: object = {},
  ): Promise<OllamaAnswer> {
    const options = { temperature: 0, num_predict: count }
    const body = { model, messages, stream: false, logprobs: true, options, ...more }
    return (await this.post('chat', body)) as unknown as OllamaAnswer
  }
}
