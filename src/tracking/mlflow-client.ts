import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Settings } from '../settings.ts'
import type { TrackedRun } from './tracker.ts'

/** Remembers a run's id at the server, so that a resumed run goes on there. */
const MLFLOW_FILE = 'mlflow_run.json'
const TIMEOUT_MS = 5000
/** MLflow takes at most this many parameters in one request. */
const PARAMETERS_A_REQUEST = 100

export type MlflowOptions = NonNullable<Settings['tracking']['mlflow']>

/** What is asked of an MLflow tracking server (mlflow.org/docs/latest/rest-api.html, version 2.0). Redirects are not followed. */
export class MlflowClient {
  readonly #options: MlflowOptions

  constructor(options: MlflowOptions) {
    this.#options = options
  }

  /** Posts a body, or gets a path that has none. @throws Error naming the status of any answer but a good one. */
  async request(path: string, body?: unknown): Promise<Record<string, unknown>> {
    const { uri, token } = this.#options
    const response = await fetch(`${uri.replace(/\/$/, '')}/api/2.0/mlflow/${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    if (!response.ok) throw new Error(`${path} answered ${response.status}`)
    return (await response.json()) as Record<string, unknown>
  }

  /** The server's id of a run: the one it had before, where it was resumed, or that of a new one with the run's config. */
  async openRun({ id, config, outputDir, resumedStep }: TrackedRun, startTime: number): Promise<string> {
    const file = join(outputDir, MLFLOW_FILE)
    if (resumedStep > 0 && existsSync(file)) {
      return (JSON.parse(readFileSync(file, 'utf8')) as { run_id: string }).run_id
    }
    const created = await this.request('runs/create', {
      experiment_id: await this.#experimentId(),
      run_name: id,
      start_time: startTime,
    })
    const made = (created.run as { info: { run_id: string } }).info.run_id
    const params = Object.entries(config).map(([key, value]) => ({ key, value: String(value).slice(0, 500) }))
    for (let start = 0; start < params.length; start += PARAMETERS_A_REQUEST) {
      const some = params.slice(start, start + PARAMETERS_A_REQUEST)
      await this.request('runs/log-batch', { run_id: made, params: some })
    }
    writeFileSync(file, `${JSON.stringify({ run_id: made })}\n`)
    return made
  }

  async #experimentId(): Promise<string> {
    const { experiment: name } = this.#options
    try {
      const found = await this.request(`experiments/get-by-name?experiment_name=${encodeURIComponent(name)}`)
      return (found.experiment as { experiment_id: string }).experiment_id
    } catch (error) {
      if (!(error instanceof Error) || !error.message.endsWith(' 404')) throw error
      return (await this.request('experiments/create', { name })).experiment_id as string
    }
  }
}
