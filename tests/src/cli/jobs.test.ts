import { execFileSync } from 'node:child_process'
import { existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { anneal, createWorkplace } from './run-anneal.ts'

const place = createWorkplace()
const { env } = place
const outputDir = join(place.root, 'first')
const shared = ['model=anneal-tiny', 'dataset=anneal_identity', 'max_steps=2', 'logging_steps=1']
let id: string

beforeAll(async () => {
  const { stdout, code, stderr } = await anneal(['train', ...shared, `output_dir=${outputDir}`, '--json'], {
    env,
  })
  expect({ code, stderr }).toMatchObject({ code: 0 })
  id = JSON.parse(stdout).id
})

afterAll(() => rmSync(place.root, { recursive: true, force: true }))

describe('anneal ps, logs, cancel, rm', () => {
  it('lists a finished run with --all only', async () => {
    const [active, all] = await Promise.all([
      anneal(['ps'], { env }),
      anneal(['ps', '--all', '--json'], { env }),
    ])
    expect(active.stdout).toBe('')
    expect(JSON.parse(all.stdout)).toMatchObject([{ id, kind: 'train', status: 'succeeded' }])
  })

  it("prints a run's log, and its events", async () => {
    const [log, events] = await Promise.all([
      anneal(['logs', id], { env }),
      anneal(['logs', id, '--json'], { env }),
    ])
    expect(log.stdout).toContain('step 2/2 loss')
    const types = events.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).type)
    expect(types.at(-1)).toBe('succeeded')
  })

  it('says that a finished run cannot be cancelled, and which jobs exist', async () => {
    const [finished, absent] = await Promise.all([
      anneal(['cancel', id], { env }),
      anneal(['cancel', 'run-000000000000'], { env }),
    ])
    expect(finished).toMatchObject({ code: 1, stderr: expect.stringContaining('succeeded already') })
    expect(absent).toMatchObject({ code: 1, stderr: expect.stringContaining('anneal ps --all') })
  })

  it('repeats a run from its training_args.yaml with the same losses, then deletes it', async () => {
    const file = join(outputDir, 'training_args.yaml')
    const { stdout, code } = await anneal(['train', '--from', file, '--json'], { env })
    expect(code).toBe(0)
    const again = JSON.parse(stdout)
    const first = JSON.parse((await anneal(['ps', '--all', '--kind', 'train', '--json'], { env })).stdout)[1]
    expect(again.progress.loss).toBe(first.progress.loss)
    expect(again.output_dir).not.toBe(outputDir)
    expect(await anneal(['rm', id], { env })).toMatchObject({ code: 0 })
    expect(existsSync(outputDir)).toBe(false)
  })
})

describe('anneal completion', () => {
  it('prints a script that bash reads and that completes commands and options', async () => {
    const { stdout } = await anneal(['completion', 'bash'], { env })
    const reply = 'COMP_WORDS=(anneal tr); COMP_CWORD=1; _anneal; echo $COMPREPLY'
    expect(execFileSync('bash', ['-c', `${stdout}\n${reply}`], { encoding: 'utf8' }).trim()).toBe('train')
    const option = 'COMP_WORDS=(anneal train --pre); COMP_CWORD=2; _anneal; echo $COMPREPLY'
    expect(execFileSync('bash', ['-c', `${stdout}\n${option}`], { encoding: 'utf8' }).trim()).toBe(
      '--preview',
    )
  })
})
