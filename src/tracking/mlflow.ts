import { MlflowClient, type MlflowOptions } from './mlflow-client.ts'
import type { TrackedRun, TrackedValues, Tracker } from './tracker.ts'

/** After a failure nothing is sent for this long; what was measured meanwhile is kept and sent later. */
const PAUSE_MS = 60_000
/** MLflow takes at most this many metrics in one request. */
const METRICS_A_REQUEST = 1000
/** Values that wait for a server that does not answer; older ones are dropped. */
const MOST_WAITING = 10_000

interface Metric {
  key: string
  value: number
  timestamp: number
  step: number
}

/**
 * Sends curves to an MLflow tracking server. The address comes from the operator alone, and a server that is slow costs a run
 * at most five seconds a minute.
 */
export function mlflowTracker(options: MlflowOptions, now: () => number = Date.now): Tracker {
  const client = new MlflowClient(options)
  let run: TrackedRun | undefined
  let runId: string | undefined
  let waiting: Metric[] = []
  let pausedUntil = 0

  const send = async (): Promise<void> => {
    if (now() < pausedUntil || !run) return
    try {
      runId ??= await client.openRun(run, now())
      while (waiting.length > 0) {
        const metrics = waiting.slice(0, METRICS_A_REQUEST)
        await client.request('runs/log-batch', { run_id: runId, metrics })
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
      await client.request('runs/update', { run_id: runId, status: 'FINISHED', end_time: time })
    },
  }
}
