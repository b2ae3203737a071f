import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { accumulateGradients } from '../../../engine/train/accumulate.ts'
import { parseTrainConfig, type TrainConfig } from '../../../engine/train/config.ts'
import type { TrainEvent } from '../../../engine/train/events.ts'
import { type TrainOptions, train } from '../../../engine/train/loop.ts'
import { languageModel } from '../../../engine/train/objectives/language-model.ts'
import { createRandom } from '../../../engine/train/random.ts'
import type { TrainStep } from '../../../engine/train/step.ts'
import { bigramStep, PAD, randomExamples } from './bigram-step.ts'

let outputDir: string
beforeEach(() => {
  outputDir = mkdtempSync(join(tmpdir(), 'anneal-loop-'))
})
afterEach(() => rmSync(outputDir, { recursive: true, force: true }))

function config(fields: Record<string, unknown> = {}): TrainConfig {
  return parseTrainConfig({
    model: 'bigram',
    dataset: 'random',
    learning_rate: 0.05,
    num_train_epochs: 2,
    per_device_train_batch_size: 2,
    gradient_accumulation_steps: 2,
    weight_decay: 0.1,
    warmup_steps: 2,
    lr_scheduler_type: 'cosine',
    logging_steps: 3,
    save_steps: 1000,
    lora_dropout: 0.2,
    ...fields,
  })
}

function options(overrides: Partial<TrainOptions> & { config: TrainConfig }): TrainOptions {
  let time = 0
  return {
    step: bigramStep({ dropout: 0.2 }),
    examples: randomExamples(11),
    padId: PAD,
    outputDir,
    allParameters: 56,
    writeModel: (folder) => writeFileSync(join(folder, 'adapter_model.safetensors'), 'weights'),
    now: () => {
      time += 500
      return time
    },
    ...overrides,
  }
}

async function collect(run: TrainOptions): Promise<TrainEvent[]> {
  const events: TrainEvent[] = []
  for await (const event of train(run)) events.push(event)
  return events
}

const ofType = <T extends TrainEvent['type']>(events: readonly TrainEvent[], type: T) =>
  events.filter((event): event is Extract<TrainEvent, { type: T }> => event.type === type)

const losses = (events: readonly TrainEvent[]) => ofType(events, 'step').map(({ loss }) => loss)
const logs = (events: readonly TrainEvent[]) =>
  ofType(events, 'log').map(({ step, loss, learningRate, gradNorm }) => ({
    step,
    loss,
    learningRate,
    gradNorm,
  }))
const weights = (step: TrainStep) => step.parameters.map(({ data }) => Array.from(data))

describe('a run', () => {
  it('takes as many steps as transformers, the last of an epoch with fewer batches', async () => {
    // 11 examples: 6 batches of 2, 3 steps of 2 batches; two epochs.
    const events = await collect(options({ config: config() }))
    expect(events[0]).toMatchObject({
      type: 'start',
      totalSteps: 6,
      stepsPerEpoch: 3,
      epochs: 2,
      resumedStep: 0,
    })
    const epochs = ofType(events, 'step').map(({ epoch }) => epoch.toFixed(3))
    expect(epochs).toEqual(['0.333', '0.667', '1.000', '1.333', '1.667', '2.000'])
  })

  it('stops at max_steps, which overrides the epochs', async () => {
    const events = await collect(options({ config: config({ max_steps: 7 }) }))
    expect(losses(events)).toHaveLength(7)
    expect(events[0]).toMatchObject({ epochs: 3 })
  })

  it('learns: the loss falls', async () => {
    const events = await collect(options({ config: config({ num_train_epochs: 40, lora_dropout: 0 }) }))
    const all = losses(events)
    expect(all.at(-1)).toBeLessThan(all[0]! - 0.2)
  })

  it('logs the mean loss of each window, and the rest of it at the end', async () => {
    const events = await collect(options({ config: config({ max_steps: 7 }) }))
    const all = losses(events)
    const mean = (part: number[]) => part.reduce((sum, loss) => sum + loss, 0) / part.length
    expect(logs(events).map(({ step, loss }) => [step, loss])).toEqual([
      [3, mean(all.slice(0, 3))],
      [6, mean(all.slice(3, 6))],
      [7, mean(all.slice(6))],
    ])
    expect(ofType(events, 'done')[0]!.results.train.train_loss).toBeCloseTo(mean(all), 12)
  })

  it('evaluates every eval_steps and at the end, as the mean over the held-out tokens', async () => {
    const evalExamples = randomExamples(5, 9)
    const fields = { val_size: 5, eval_steps: 4, per_device_eval_batch_size: 2 }
    const events = await collect(options({ config: config(fields), evalExamples }))
    expect(ofType(events, 'eval').map(({ step }) => step)).toEqual([4, 6])
    const { results } = ofType(events, 'done')[0]!
    expect(results.eval!.eval_loss).toBe(ofType(events, 'eval').at(-1)!.loss)
  })

  it('tells the time left from the pace so far', async () => {
    const [first] = ofType(await collect(options({ config: config() })), 'step')
    expect(first!.remainingSeconds).toBeCloseTo(5 * first!.elapsedSeconds, 6)
    expect(first!.percentage).toBeCloseTo(100 / 6)
    expect(first!.tokensPerSecond).toBeGreaterThan(0)
  })

  it('refuses an empty dataset', async () => {
    await expect(collect(options({ config: config(), examples: [] }))).rejects.toMatchObject({
      code: 'no_examples',
      param: 'dataset',
    })
  })

  it('stops when the loss is NaN, names the last good checkpoint and leaves it', async () => {
    const run = options({ config: config({ save_steps: 2 }), step: bigramStep({ nanAt: 7 }) })
    await expect(collect(run)).rejects.toMatchObject({
      code: 'training_diverged',
      message: expect.stringMatching(/loss is NaN at step 4.*checkpoint-2\./s),
    })
    expect(readdirSync(outputDir)).toEqual(['checkpoint-2'])
    for (const values of weights(run.step)) expect(values.every(Number.isFinite)).toBe(true)
  })
})

describe('gradient accumulation', () => {
  it('gives the loss and the gradients of one big batch', async () => {
    const examples = randomExamples(6)
    const model = bigramStep()
    const big = await accumulateGradients(model, [examples], languageModel, {
      padId: PAD,
      random: createRandom(1),
    })
    const small = [examples.slice(0, 1), examples.slice(1, 4), examples.slice(4)]
    const accumulated = await accumulateGradients(model, small, languageModel, {
      padId: PAD,
      random: createRandom(1),
    })
    expect(accumulated.loss).toBeCloseTo(big.loss, 12)
    expect(accumulated.tokens).toBe(big.tokens)
    for (const [index, gradient] of accumulated.gradients.entries()) {
      for (const [i, value] of gradient.entries()) expect(value).toBeCloseTo(big.gradients[index]![i]!, 6)
    }
  })
})

describe('resuming', () => {
  const full = { num_train_epochs: 3, val_size: 2, eval_steps: 4 }
  const evalExamples = randomExamples(2, 9)

  it('from the checkpoint of any step gives the very same losses, logs and weights', async () => {
    const whole = options({ config: config({ ...full, save_steps: 1 }), evalExamples })
    const expected = await collect(whole)
    const total = losses(expected).length
    for (let k = 1; k <= total; k++) {
      const rest = options({
        config: config({ ...full, save_steps: 1 }),
        evalExamples,
        outputDir: mkdtempSync(join(outputDir, 'resumed-')),
        resumeFrom: join(outputDir, `checkpoint-${k}`),
      })
      const events = await collect(rest)
      expect(events[0]).toMatchObject({ resumedStep: k })
      expect(ofType(events, 'warning')).toEqual([])
      expect(losses(events)).toEqual(losses(expected).slice(k))
      expect(logs(events)).toEqual(logs(expected).filter(({ step }) => step > k))
      expect(weights(rest.step)).toEqual(weights(whole.step))
      const [done, wanted] = [ofType(events, 'done')[0]!, ofType(expected, 'done')[0]!]
      expect(done.results.train.train_loss).toBe(wanted.results.train.train_loss)
      expect(done.results.eval!.eval_loss).toBe(wanted.results.eval!.eval_loss)
    }
  })

  it('after a cancel goes on from the step where it stopped', async () => {
    const expected = losses(await collect(options({ config: config() })))
    rmSync(outputDir, { recursive: true })
    const cancel = new AbortController()
    const seen: number[] = []
    const run = train(options({ config: config(), signal: cancel.signal }))
    await expect(async () => {
      for await (const event of run) {
        if (event.type !== 'step') continue
        seen.push(event.loss)
        if (event.step === 4) cancel.abort()
      }
    }).rejects.toMatchObject({ kind: 'cancelled' })
    expect(readdirSync(outputDir)).toEqual(['checkpoint-4'])
    const rest = await collect(options({ config: config(), resumeFrom: join(outputDir, 'checkpoint-4') }))
    expect([...seen, ...losses(rest)]).toEqual(expected)
  })

  it('warns when the run goes on with other settings or data', async () => {
    await collect(options({ config: config() }))
    const resumeFrom = join(outputDir, 'checkpoint-6')
    const changed = options({ config: config({ num_train_epochs: 3, learning_rate: 0.01 }), resumeFrom })
    const [warning] = ofType(await collect({ ...changed, examples: randomExamples(11, 4) }), 'warning')
    expect(warning!.message).toMatch(/learning_rate was 0.05, is 0.01/)
    expect(warning!.message).toMatch(/num_train_epochs was 2, is 3/)
    expect(warning!.message).toMatch(/training examples differ/)
  })
})

describe('checkpoints of a run', () => {
  it('come every save_steps and at the end, and only the newest are kept', async () => {
    const events = await collect(
      options({ config: config({ save_steps: 2, save_total_limit: 2, max_steps: 7 }) }),
    )
    expect(ofType(events, 'checkpoint').map(({ step }) => step)).toEqual([2, 4, 6, 7])
    expect(readdirSync(outputDir).sort()).toEqual(['checkpoint-6', 'checkpoint-7'])
  })

  it('hold only the model with save_only_model', async () => {
    await collect(options({ config: config({ save_only_model: true }) }))
    const folder = join(outputDir, 'checkpoint-6')
    expect(existsSync(join(folder, 'adapter_model.safetensors'))).toBe(true)
    expect(existsSync(join(folder, 'optimizer.safetensors'))).toBe(false)
    await expect(collect(options({ config: config(), resumeFrom: folder }))).rejects.toMatchObject({
      code: 'checkpoint_not_resumable',
      message: expect.stringContaining('save_only_model'),
    })
  })
})
