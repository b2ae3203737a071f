import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createRandom } from '../../../engine/random.ts'
import { accumulateGradients, evaluate } from '../../../engine/train/accumulate.ts'
import { parseTrainConfig, type TrainConfig } from '../../../engine/train/config.ts'
import type { TrainEvent } from '../../../engine/train/events.ts'
import { type TrainOptions, train } from '../../../engine/train/loop.ts'
import { languageModel } from '../../../engine/train/objectives/language-model.ts'
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
    const events = await collect(
      options({ config: config(fields), evaluationSets: [{ examples: evalExamples }] }),
    )
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

  it('stops when the loss is NaN, names its rows and the last good checkpoint, and leaves it', async () => {
    const examples = randomExamples(11).map((example, row) => ({
      ...example,
      places: [`set.json row ${row + 1}`],
    }))
    const fields = { save_steps: 2, disable_shuffling: true }
    const run = options({ config: config(fields), examples, step: bigramStep({ nanAt: 7 }) })
    // Three steps of two batches of two are an epoch, so the seventh batch is the first of the second epoch.
    await expect(collect(run)).rejects.toMatchObject({
      code: 'training_diverged',
      message: expect.stringMatching(
        /loss is NaN at step 4.*Its batch was set.json row 1, set.json row 2\..*checkpoint-2\./s,
      ),
    })
    expect(readdirSync(outputDir)).toEqual(['checkpoint-2'])
    for (const values of weights(run.step)) expect(values.every(Number.isFinite)).toBe(true)
  })
})

/** A step whose evaluations come out as `losses`, one after another. */
function evaluatedAs(losses: readonly number[]): TrainStep {
  const step = bigramStep()
  let next = 0
  return { ...step, evaluate: async () => ({ loss: losses[next++] ?? Number.NaN }) }
}

describe('the best evaluation', () => {
  const evaluationSets = [{ examples: randomExamples(1, 9) }]
  const fields = { val_size: 1, eval_steps: 1, max_steps: 6, load_best_model_at_end: true, lora_dropout: 0 }

  it('is saved at once, survives save_total_limit, and its weights are the result', async () => {
    const step = evaluatedAs([3, 1, 2, 2, 2, 2])
    const saved: number[][][] = []
    const writeModel = (folder: string) => {
      saved.push(weights(step))
      writeFileSync(join(folder, 'adapter_model.safetensors'), 'weights')
    }
    const events = await collect(
      options({ config: config({ ...fields, save_total_limit: 1 }), step, evaluationSets, writeModel }),
    )
    expect(ofType(events, 'checkpoint').map((event) => event.step)).toEqual([1, 2, 6])
    expect(readdirSync(outputDir).sort()).toEqual(['checkpoint-2', 'checkpoint-6'])
    expect(ofType(events, 'best')).toMatchObject([{ step: 2, metric: 'eval_loss', value: 1 }])
    expect(weights(step)).toEqual(saved[1])
    const { results, history } = ofType(events, 'done')[0]!
    expect(results.eval!.eval_loss).toBe(1)
    expect(history.best).toEqual({ step: 2, value: 1 })
  })

  it('that was removed meanwhile leaves the last weights, with a warning', async () => {
    const step = evaluatedAs([1, 2, 2, 2, 2, 2])
    const run = train(options({ config: config({ ...fields, save_steps: 3 }), step, evaluationSets }))
    const events: TrainEvent[] = []
    for await (const event of run) {
      events.push(event)
      if (event.type === 'step' && event.step === 4)
        rmSync(join(outputDir, 'checkpoint-1'), { recursive: true })
    }
    expect(ofType(events, 'warning').map(({ code }) => code)).toEqual(['best_model_lost'])
    expect(ofType(events, 'done')[0]!.results.eval!.eval_loss).toBe(2)
  })

  it('may be the greatest value of another metric', async () => {
    const step = evaluatedAs([])
    let call = 0
    step.evaluate = async () => ({
      loss: 1,
      metrics: { 'rewards/accuracies': { sum: [0.2, 0.9, 0.5][call++] ?? 0.1, count: 1 } },
    })
    const metric = { stage: 'dpo', metric_for_best_model: 'rewards/accuracies' }
    const events = await collect(options({ config: config({ ...fields, ...metric }), step, evaluationSets }))
    expect(ofType(events, 'best')).toMatchObject([{ step: 2, metric: 'eval_rewards/accuracies', value: 0.9 }])
  })

  it('ends the run when early_stopping_steps evaluations were no better, saved, evaluated and resumable', async () => {
    const losses = [3, 1, 2, 1, 2, 0]
    const stopping = { ...fields, load_best_model_at_end: false, early_stopping_steps: 2 }
    const events = await collect(
      options({ config: config(stopping), step: evaluatedAs(losses), evaluationSets }),
    )
    expect(ofType(events, 'step')).toHaveLength(4)
    expect(ofType(events, 'stop')).toMatchObject([
      {
        step: 4,
        reason: 'early_stopping',
        message: expect.stringContaining('eval_loss has not become better than 1'),
      },
    ])
    expect(ofType(events, 'done')).toHaveLength(1)
    const resumeFrom = join(outputDir, 'checkpoint-4')
    const again = options({ config: config(stopping), step: evaluatedAs([]), evaluationSets, resumeFrom })
    expect(ofType(await collect(again), 'step')).toHaveLength(0)
    const patient = config({ ...stopping, early_stopping_steps: 9 })
    const onward = options({ config: patient, step: evaluatedAs([5, 5]), evaluationSets, resumeFrom })
    expect(ofType(await collect(onward), 'step')).toHaveLength(2)
  })

  it('is logged for each set by its name, beside the mean over all of them', async () => {
    const [a, b] = [randomExamples(2, 9), randomExamples(5, 10)]
    const each = { eval_dataset: 'a,b', eval_on_each_dataset: true, eval_steps: 6, lora_dropout: 0 }
    const run = options({
      config: config(each),
      evaluationSets: [
        { name: 'a', examples: a },
        { name: 'b', examples: b },
      ],
    })
    const [evaluation] = ofType(await collect(run), 'eval')
    const alone = await evaluate(run.step, [{ examples: b }], languageModel, { batchSize: 8, padId: PAD })
    expect(evaluation!.metrics.eval_b_loss).toBeCloseTo(alone.eval_loss!, 6)
    const together = [{ examples: [...a, ...b] }]
    const all = await evaluate(run.step, together, languageModel, { batchSize: 8, padId: PAD })
    expect(evaluation!.loss).toBeCloseTo(all.eval_loss!, 6)
  })
})

describe('a loss that no longer falls', () => {
  const flat = {
    max_steps: 60,
    logging_steps: 1,
    learning_rate: 1e-9,
    lora_dropout: 0,
    disable_shuffling: true,
  }
  /** Every step has the same batch, so the loss stays where it is. */
  const examples = randomExamples(4)

  it('is warned about once, and the run goes on', async () => {
    const events = await collect(options({ config: config(flat), examples }))
    expect(ofType(events, 'warning').map(({ code }) => code)).toEqual(['loss_flattened'])
    expect(ofType(events, 'step')).toHaveLength(60)
  })

  it('ends the run where stop_when_flat asks for that, with a last evaluation and checkpoint', async () => {
    const asked = config({ ...flat, stop_when_flat: true, val_size: 1 })
    const events = await collect(options({ config: asked, examples, evaluationSets: [{ examples }] }))
    expect(ofType(events, 'stop')).toMatchObject([{ step: 20, reason: 'flattened' }])
    expect(ofType(events, 'eval').map(({ step }) => step)).toEqual([20])
    expect(readdirSync(outputDir)).toEqual(['checkpoint-20'])
    expect(ofType(events, 'done')).toHaveLength(1)
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
  const evaluationSets = [{ examples: randomExamples(2, 9) }]

  it('from the checkpoint of any step gives the very same losses, logs and weights', async () => {
    const whole = options({ config: config({ ...full, save_steps: 1 }), evaluationSets })
    const expected = await collect(whole)
    const total = losses(expected).length
    for (let k = 1; k <= total; k++) {
      const rest = options({
        config: config({ ...full, save_steps: 1 }),
        evaluationSets,
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

  const layered = () => {
    const { parameters, ...rest } = bigramStep({ dropout: 0.2 })
    return {
      ...rest,
      parameters: parameters.map((parameter, i) => ({ ...parameter, name: `layers.${i}.${parameter.name}` })),
    }
  }

  it.each([
    { optim: 'sgd', optim_args: 'momentum=0.9' },
    { optim: 'adafactor' },
    { optim: 'lion_32bit' },
    { use_muon: true },
    { use_galore: true, galore_rank: 2, galore_update_interval: 2 },
    { use_badam: true, badam_switch_interval: 2 },
    { use_badam: true, badam_switch_interval: 2, badam_switch_mode: 'random' },
  ])('through checkpoints changes no bit with %j', async (fields) => {
    const settings = {
      finetuning_type: 'full',
      lora_dropout: 0,
      num_train_epochs: 3,
      save_steps: 1,
      ...fields,
    }
    const whole = options({ config: config(settings), step: layered() })
    const expected = losses(await collect(whole))
    for (let k = 1; k < expected.length; k++) {
      const rest = options({
        config: config(settings),
        step: layered(),
        outputDir: mkdtempSync(join(outputDir, 'resumed-')),
        resumeFrom: join(outputDir, `checkpoint-${k}`),
      })
      expect(losses(await collect(rest))).toEqual(expected.slice(k))
      expect(weights(rest.step)).toEqual(weights(whole.step))
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
