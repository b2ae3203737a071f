/**
 * Kills a training run of the embedded model with SIGKILL at random moments, half of them while a checkpoint is written,
 * one kill a run; lets each go on to its end, and compares its adapter with that of a run that nobody killed, bit by bit.
 *
 *   npm run bench:resume -- [--kills 20] [--seed 1]
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { adapterOf, randomMoments, runUntil } from '../tests/src/training/killed-run.ts'

const { values } = parseArgs({
  options: { kills: { type: 'string', default: '20' }, seed: { type: 'string', default: '1' } },
})
const folder = mkdtempSync(join(tmpdir(), 'anneal-resume-'))
try {
  await runUntil(join(folder, 'whole'))
  const expected = adapterOf(join(folder, 'whole'))
  let killed = 0
  let identical = 0
  const moments = randomMoments(Number(values.kills), Number(values.seed))
  for (const [index, moment] of moments.entries()) {
    const outputDir = join(folder, `run-${index}`)
    const wasKilled = await runUntil(outputDir, moment)
    if (wasKilled) await runUntil(outputDir)
    const same = adapterOf(outputDir).equals(expected)
    killed += Number(wasKilled)
    identical += Number(same)
    const when = `${JSON.stringify(moment.at)} + ${moment.delayMs.toFixed(1)} ms`
    console.log(
      `${index + 1}. ${when}: ${wasKilled ? 'killed' : 'ended before'}, ${same ? 'identical' : 'DIFFERENT'}`,
    )
    rmSync(outputDir, { recursive: true, force: true })
  }
  console.log(`${killed} of ${moments.length} killed; ${identical} of ${moments.length} adapters identical`)
  if (identical !== moments.length) process.exitCode = 1
} finally {
  rmSync(folder, { recursive: true, force: true })
}
