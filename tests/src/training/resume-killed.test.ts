import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { adapterOf, type Moment, runUntil } from './killed-run.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-killed-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Its log without what depends on the clock. */
function losses(outputDir: string): unknown[] {
  const lines = readFileSync(join(outputDir, 'trainer_log.jsonl'), 'utf8').trim().split('\n')
  return lines.map((line) => {
    const { current_steps, loss, eval_loss, lr } = JSON.parse(line)
    return { current_steps, loss, eval_loss, lr }
  })
}

describe('a run that is killed (SIGKILL)', () => {
  const whole = join(folder, 'whole')
  beforeAll(async () => {
    expect(await runUntil(whole)).toBe(false)
  }, 60_000)

  const moments: Moment[] = [
    { at: { writing: 1 }, delayMs: 0 }, // in its first checkpoint: nothing to go on from
    { at: { writing: 5 }, delayMs: 1 },
    { at: { writing: 'final' }, delayMs: 0 },
  ]

  it('in the writing of its first checkpoint, of a later one and of its result, ends bit for bit as if it was not', async () => {
    const outputDir = join(folder, 'killed')
    for (const moment of moments) expect(await runUntil(outputDir, moment)).toBe(true)
    expect(await runUntil(outputDir)).toBe(false)
    expect(adapterOf(outputDir).equals(adapterOf(whole))).toBe(true)
    expect(losses(outputDir)).toEqual(losses(whole))
  }, 120_000)
})
