import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { type TrainOptions, train } from '../../../engine/train/loop.ts'
import { createRunFolder, drawLoss } from '../../../engine/train/run-folder.ts'
import { formatDuration, readTrainerLog } from '../../../engine/train/trainer-log.ts'
import { bigramStep, PAD, randomExamples } from './bigram-step.ts'

let outputDir: string
beforeEach(() => {
  outputDir = mkdtempSync(join(tmpdir(), 'anneal-folder-'))
})
afterEach(() => rmSync(outputDir, { recursive: true, force: true }))

const config = parseTrainConfig({
  model: 'models/tiny',
  dataset: 'identity',
  max_steps: 6,
  logging_steps: 2,
  save_steps: 3,
  val_size: 2,
  eval_steps: 3,
})

async function run(options: Partial<TrainOptions> = {}, until = 'done'): Promise<void> {
  const writeModel = (folder: string) => writeFileSync(join(folder, 'adapter_model.safetensors'), 'weights')
  const record = createRunFolder({ outputDir, config, writeModel })
  let time = 0
  const now = () => {
    time += 1000
    return time
  }
  const whole = {
    config,
    step: bigramStep(),
    examples: randomExamples(9),
    evaluationSets: [{ examples: randomExamples(2, 5) }],
    padId: PAD,
  }
  for await (const event of train({ ...whole, outputDir, allParameters: 56, writeModel, now, ...options })) {
    if (event.type === until && until !== 'done') return
    await record(event)
  }
}

const json = (file: string) => JSON.parse(readFileSync(join(outputDir, file), 'utf8'))

describe('the folder of a finished run', () => {
  it("has LLaMA-Factory's layout", async () => {
    await run()
    expect(readdirSync(outputDir).sort()).toEqual([
      'README.md',
      'adapter_model.safetensors',
      'all_results.json',
      'checkpoint-3',
      'checkpoint-6',
      'eval_results.json',
      'train_results.json',
      'trainer_log.jsonl',
      'trainer_state.json',
      'training_args.yaml',
      'training_eval_loss.png',
      'training_loss.png',
    ])
    expect(parseTrainConfig(parse(readFileSync(join(outputDir, 'training_args.yaml'), 'utf8')))).toEqual(
      config,
    )
  })

  it("logs one JSON object a line with LLaMA-Factory's fields, without nulls", async () => {
    await run()
    const lines = readFileSync(join(outputDir, 'trainer_log.jsonl'), 'utf8').trimEnd().split('\n')
    const [first, , evaluation] = lines.map((line) => JSON.parse(line))
    expect(Object.keys(first)).toEqual([
      'current_steps',
      'total_steps',
      'loss',
      'lr',
      'epoch',
      'percentage',
      'elapsed_time',
      'remaining_time',
      'throughput',
      'total_tokens',
    ])
    expect(first).toMatchObject({ current_steps: 2, total_steps: 6, percentage: 33.33, epoch: 1 })
    expect(first.elapsed_time).toMatch(/^\d+:\d\d:\d\d$/)
    expect(evaluation).toMatchObject({ current_steps: 4 })
    expect(lines.map((line) => JSON.parse(line)).filter((line) => 'eval_loss' in line)).toHaveLength(2)
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({
      current_steps: 6,
      percentage: 100,
      remaining_time: '0:00:00',
    })
  })

  it('sums up in all_results.json what train_results.json and eval_results.json say', async () => {
    await run()
    expect(json('all_results.json')).toEqual({ ...json('train_results.json'), ...json('eval_results.json') })
    const names = ['epoch', 'total_flos', 'train_loss', 'train_runtime', 'train_samples_per_second']
    expect(Object.keys(json('train_results.json'))).toEqual(expect.arrayContaining(names))
    expect(json('trainer_state.json').log_history.at(-1).train_loss).toBe(json('all_results.json').train_loss)
  })

  it('has a model card with front matter that YAML reads', async () => {
    await run()
    const card = readFileSync(join(outputDir, 'README.md'), 'utf8')
    const [, frontMatter] = card.split('---\n')
    expect(parse(frontMatter!)).toMatchObject({
      base_model: 'tiny',
      library_name: 'peft',
      datasets: ['identity'],
    })
    expect(card).toContain('LoRA, rank 8, alpha 16')
  })
})

describe('the log of a resumed run', () => {
  it('drops what came after the checkpoint and a line that was cut short, and doubles nothing', async () => {
    await run()
    const expected = readTrainerLog(outputDir).map(({ current_steps, loss, eval_loss }) => ({
      current_steps,
      loss,
      eval_loss,
    }))
    appendFileSync(join(outputDir, 'trainer_log.jsonl'), '{"current_steps": 7, "lo')
    await run({ resumeFrom: join(outputDir, 'checkpoint-3') })
    const resumed = readTrainerLog(outputDir).map(({ current_steps, loss, eval_loss }) => ({
      current_steps,
      loss,
      eval_loss,
    }))
    expect(resumed).toEqual(expected)
  })
})

describe('a picture of the loss', () => {
  it('can be drawn while the run goes on, once there is a point', async () => {
    expect(drawLoss(outputDir)).toBeUndefined()
    await run({}, 'checkpoint')
    expect(Buffer.from(drawLoss(outputDir)!.subarray(1, 4)).toString()).toBe('PNG')
  })
})

describe('durations', () => {
  it.each([
    [0, '0:00:00'],
    [59.9, '0:00:59'],
    [3661, '1:01:01'],
    [36_000, '10:00:00'],
    [93_784, '1 day, 2:03:04'],
    [Number.NaN, '0:00:00'],
  ])('%d s are %s', (seconds, text) => expect(formatDuration(seconds)).toBe(text))
})
