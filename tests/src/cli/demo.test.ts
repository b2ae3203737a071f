import { existsSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { anneal, createWorkplace } from './run-anneal.ts'

describe('anneal demo', () => {
  const { root, env, saves } = createWorkplace()
  afterAll(() => rmSync(root, { recursive: true, force: true }))

  it('goes the whole path, and again in a new run folder', { timeout: 180_000 }, async () => {
    const first = await anneal(['demo'], { env })
    expect([first.code, first.code === 0 ? '' : first.stderr]).toEqual([0, ''])
    expect(first.stdout.match(/Who are you\?\n {3}→ (.*)\n/g)).toHaveLength(2)
    expect(first.stdout).toContain('58 rows; the first')
    const [runId, , exportId] = ['run', 'merge', 'export'].map(
      (kind) => new RegExp(`${kind}-[0-9a-f]{12}`).exec(first.stdout)?.[0],
    )
    expect(first.stdout).toContain(`npx anneal chat ${runId}`)
    const runs = join(saves, 'anneal-tiny', 'lora')
    const [folder] = readdirSync(runs)
    for (const name of [
      'adapter_model.safetensors',
      'training_loss.png',
      'trainer_log.jsonl',
      'checkpoint-100',
    ]) {
      expect([name, existsSync(join(runs, folder!, name))]).toEqual([name, true])
    }
    expect(existsSync(join(saves, 'exports', exportId!, 'model.safetensors'))).toBe(true)

    const second = await anneal(['demo'], { env })
    expect(second.code).toBe(0)
    expect(second.stdout).toContain('58 rows, already there')
    expect(readdirSync(runs)).toHaveLength(2)
  })
})
