import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { createRandom } from '../../../engine/random.ts'

/** Steps of the run in killed-run-child.ts. */
const STEPS = 8

/** A moment in a run: so many milliseconds after a step was done, or after its checkpoint's writing began. */
export interface Moment {
  at: { step: number } | { writing: number | 'final' }
  delayMs: number
}

/** Moments chosen by a seed: half of them in the writing of a checkpoint or of the result. */
export function randomMoments(count: number, seed: number): Moment[] {
  const random = createRandom(seed)
  return Array.from({ length: count }, (_, index) => {
    const step = 1 + random.nextInt(STEPS)
    const writing = random.nextInt(STEPS) === 0 ? ('final' as const) : step
    const at = index % 2 === 0 ? { writing } : { step: Math.min(step, STEPS - 1) }
    return { at, delayMs: random.next() * ('writing' in at ? 8 : 60) }
  })
}

/** Runs the child in `outputDir` until it ends, or kills it at `moment`. @returns whether it was killed. */
export async function runUntil(outputDir: string, moment?: Moment): Promise<boolean> {
  const script = join(import.meta.dirname, 'killed-run-child.ts')
  const child = spawn(process.execPath, ['--import', 'tsx', script, outputDir], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let errors = ''
  child.stderr.on('data', (piece) => (errors += piece))
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.on('close', (code, signal) => resolve({ code, signal }))
  })
  let armed = moment !== undefined
  for await (const line of createInterface({ input: child.stdout })) {
    if (!armed || line !== JSON.stringify(moment!.at)) continue
    armed = false
    setTimeout(() => child.kill('SIGKILL'), moment!.delayMs)
  }
  const { code, signal } = await ended
  if (signal === 'SIGKILL') return true
  if (code !== 0) throw new Error(`the run failed: ${errors}`)
  return false
}

/** The bytes of the run's result. */
export function adapterOf(outputDir: string): Buffer {
  return readFileSync(join(outputDir, 'adapter_model.safetensors'))
}
