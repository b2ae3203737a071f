import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Settings } from '../settings.ts'
import type { TrackedRun, TrackedValues, Tracker } from './tracker.ts'

/** Remembers a run's id at the server, so that a resumed run goes on there. */
const MLFLOW_FILE = 'mlflow_run.json'
const TIMEOUT_MS = 5000
/** After a failure nothing is sent for this long; what was measured meanwhile is kept and sent later. */
const PAUSE_MS = 60_000
/** MLflow takes at most this many metrics and parameters in one request. */
const METRICS_A_REQUEST = 1000
const PARAMETERS_A_REQUEST = 100
/** Values that wait for a server that does not answer; older ones are dropped. */
const MOST_WAITING = 10_000

type Options = NonNullable<Settings['tracking']['mlflow']>

interface Metric {
  key: string
  value: number
  timestamp: number
  step: number
}

/**
 * Sends curves to an MLflow tracking server (mlflow.org/docs/latest/rest-api.html, version 2.0). The address comes from
 * the operator alone, redirects are not followed, and a server that is slow costs a run at most five seconds a minute.
 */
export function mlflowTracker({ uri, experiment, token }: Options, now: () => number = Date.now): Tracker {
  let run: TrackedRun | undefined
  let runId: string | undefined
  let waiting: Metric[] = []
  let pausedUntil = 0

  const request = async (path: string, body?: unknown): Promise<Record<string, unknown>> => {
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

  const experimentId = async (): Promise<string> => {
    try {
      const found = await request(`experiments/get-by-name?experiment_name=${encodeURIComponent(experiment)}`)
      return (found.experiment as { experiment_id: string }).experiment_id
    } catch (error) {
      if (!(error instanceof Error) || !error.message.endsWith(' 404')) throw error
      return (await request('experiments/create', { name: experiment })).experiment_id as string
    }
  }

  /** Finds or makes the run at the server. */
  const connect = async ({ id, config, outputDir, resumedStep }: TrackedRun): Promise<string> => {
    const file = join(outputDir, MLFLOW_FILE)
    if (resumedStep > 0 && existsSync(file)) {
      return (JSON.parse(readFileSync(file, 'utf8')) as { run_id: string }).run_id
    }
    const created = await request('runs/create', {
      experiment_id: await experimentId(),
      run_name: id,
      start_time: now(),
    })
    const made = (created.run as { info: { run_id: string } }).info.run_id
    const params = Object.entries(config).map(([key, value]) => ({ key, value: String(value).slice(0, 500) }))
    for (let start = 0; start < params.length; start += PARAMETERS_A_REQUEST) {
      await request('runs/log-batch', {
        run_id: made,
        params: params.slice(start, start + PARAMETERS_A_REQUEST),
      })
    }
    writeFileSync(file, `${JSON.stringify({ run_id: made })}\n`)
    return made
  }

  const send = async (): Promise<void> => {
    if (now() < pausedUntil || !run) return
    try {
      runId ??= await connect(run)
      while (waiting.length > 0) {
        await request('runs/log-batch', { run_id: runId, metrics: waiting.slice(0, METRICS_A_REQUEST) })
        waiting = waiting.slice(METRICS_A_REQUEST)
      }
    } catch (error) {
      pausedUntil = now() + PAUSE_MS
      throw error
    }
  }

  return {
    name: 'mlflow',
    async start(started) {
      run = started
      await send()
    },
    async log({ time, step, values }: TrackedValues) {
      const metrics = Object.entries(values).map(([key, value]) => ({ key, value, timestamp: time, step }))
      waiting = [...waiting, ...metrics].slice(-MOST_WAITING)
      await send()
    },
    async finish(time) {
      pausedUntil = 0
      await send()
      await request('runs/update', { run_id: runId, status: 'FINISHED', end_time: time })
    },
  }
}
