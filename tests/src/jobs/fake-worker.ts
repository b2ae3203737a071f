import { setTimeout as sleep } from 'node:timers/promises'
import { EngineError } from '../../../engine/errors.ts'
import { runChild } from '../../../src/jobs/child.ts'
import type { TaskContext } from '../../../src/jobs/protocol.ts'

/** A child whose tasks do what the job's `resolved.script` says. */
async function fakeTask({ job, signal, report }: TaskContext): Promise<Record<string, unknown>> {
  const { script, steps = 0 } = job.resolved as { script: string; steps?: number }
  for (let step = 1; step <= steps; step++) report('progress', `step ${step}`, { step, total_steps: steps })
  console.log(`log of ${job.id}`)
  report('log', 'at work', { pid: process.pid, attempt: job.attempt })
  switch (script) {
    case 'finish':
      return { done: true }
    case 'throw':
      throw new EngineError('invalid', 'bad_row', 'Row 7 is wrong.', { param: 'dataset' })
    case 'crash':
      console.error('last words')
      return process.exit(7)
    case 'on-a-device':
      // the first one waits for what befalls it
      if (job.attempt === 1) await sleep(600_000, undefined, { signal })
      return { device: job.placement?.name, visible: process.env.STAND_IN, attempt: job.attempt }
    case 'until-stopped':
      await sleep(600_000, undefined, { signal })
      return {}
    case 'deaf':
      await sleep(600_000)
      return {}
    default:
      throw new Error(`unknown script ${script}`)
  }
}

const load = async () => fakeTask
runChild({ train: load, merge: load, export: load, import: load, evaluation: load })
