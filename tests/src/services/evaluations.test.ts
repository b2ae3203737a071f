import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openModel } from '../../../engine/models/index.ts'
import { resolveChatTemplate } from '../../../engine/text/chat-template.ts'
import { encodeConversation } from '../../../engine/text/encode.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { evaluate as evaluateExamples } from '../../../engine/train/accumulate.ts'
import { CompiledStep } from '../../../engine/train/compiled-step.ts'
import { languageModel } from '../../../engine/train/objectives/language-model.ts'
import { type RunningServer, startServer } from '../../../src/main.ts'
import { loadSettings } from '../../../src/settings.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { anneal } from '../cli/run-anneal.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-evaluation-'))
const env = {
  ANNEAL_MODELS_DIR: join(root, 'models'),
  ANNEAL_DATA_DIR: root,
  ANNEAL_SAVES_DIR: join(root, 'saves'),
  ANNEAL_PORT: '0',
}
const rows = [
  { instruction: 'What is 2 plus 3?', input: '', output: '2 plus 3 is 5.' },
  { instruction: 'Hello!', input: '', output: 'Hello! How can I help you?' },
]
let server: RunningServer

beforeAll(async () => {
  cpSync(ANNEAL_TINY, join(root, 'models/anneal-tiny'), { recursive: true })
  cpSync(ANNEAL_TINY, join(root, 'models/other'), { recursive: true })
  writeFileSync(join(root, 'rows.json'), JSON.stringify(rows))
  const long = { instruction: 'word '.repeat(600), input: '', output: 'Yes.' }
  writeFileSync(join(root, 'long.json'), JSON.stringify([rows[0], long, rows[1]]))
  writeFileSync(join(root, 'only_long.json'), JSON.stringify([long]))
  const info = ['rows', 'long', 'only_long'].map((name) => [name, { file_name: `${name}.json` }])
  writeFileSync(join(root, 'dataset_info.json'), JSON.stringify(Object.fromEntries(info)))
  mkdirSync(join(root, 'evaluation/long/test'), { recursive: true })
  writeFileSync(join(root, 'evaluation/long/test/sums_test.csv'), `${'word '.repeat(600)},2,3,4,5,A\n`)
  mkdirSync(join(root, 'evaluation/small/test'), { recursive: true })
  writeFileSync(join(root, 'evaluation/small/test/sums_test.csv'), 'What is 1 plus 1?,2,3,4,5,A\n')
  server = await startServer(await loadSettings({ env, cwd: root }), { logger: pino({ level: 'silent' }) })
})

afterAll(async () => {
  await server.close()
  rmSync(root, { recursive: true })
})

async function call(path: string, body?: unknown) {
  const init = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(`${server.url}${path}`, { ...init, headers })
  // biome-ignore lint/suspicious/noExplicitAny: bodies are read as a client reads them
  return { status: response.status, body: (await response.json()) as any }
}

async function evaluate(request: unknown) {
  const { status, body } = await call('/v1/evaluations', request)
  expect({ status, body }).toMatchObject({ status: 201, body: { object: 'evaluation', status: 'queued' } })
  await (await fetch(`${server.url}/v1/evaluations/${body.id}/events`)).text()
  return (await call(`/v1/evaluations/${body.id}`)).body
}

describe('POST /v1/evaluations', () => {
  it("gives the loss that training's evaluation gives, and scores of generated answers, for each model", async () => {
    const done = await evaluate({ model: ['anneal-tiny', 'other'], dataset: 'rows', max_new_tokens: 24 })
    expect(done).toMatchObject({ status: 'succeeded', models: ['anneal-tiny', 'other'] })
    const [first, second] = done.results
    expect(first.metrics).toEqual(second.metrics)
    expect(first.metrics.eval_loss).toBeCloseTo(await trainingLoss(), 4)
    expect(first.metrics.eval_perplexity).toBeCloseTo(Math.exp(first.metrics.eval_loss), 6)
    expect(first.metrics['predict_bleu-4']).toBeGreaterThan(0)

    const lines = await (
      await fetch(`${server.url}/v1/evaluations/${done.id}/predictions?model=other`)
    ).text()
    const predictions = lines
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(predictions.map(({ label }) => label)).toEqual(rows.map(({ output }) => output))
    expect(predictions[0].prompt).toContain('What is 2 plus 3?')
    const table = readFileSync(join(root, 'saves/evaluations', done.id, 'results.md'), 'utf8')
    expect(table).toContain('|  | anneal-tiny | other |')
  })

  it('counts rows that are longer than the context, and goes on', async () => {
    const done = await evaluate({ model: 'anneal-tiny', dataset: 'long', max_new_tokens: 8 })
    expect(done).toMatchObject({ status: 'succeeded' })
    expect(done.results[0].metrics).toMatchObject({ eval_samples: 2, eval_too_long: 1, predict_too_long: 1 })
    expect(done.results[0].metrics.eval_loss).toBeCloseTo(await trainingLoss(), 4)

    const choice = await evaluate({ model: 'anneal-tiny', task: 'long_test' })
    expect(choice.results[0].metrics).toMatchObject({ accuracy: 0, questions: 1, too_long: 1 })
    const none = await evaluate({ model: 'anneal-tiny', dataset: 'only_long' })
    expect(none).toMatchObject({ status: 'failed', error: { code: 'no_valid_samples' } })
  })

  it('answers multiple choice with one of the letters', async () => {
    const done = await evaluate({ model: 'anneal-tiny', task: 'small_test' })
    expect(done.results[0].metrics.questions).toBe(1)
    const file = join(root, 'saves/evaluations', done.id, 'anneal-tiny/choices.jsonl')
    expect(JSON.parse(readFileSync(file, 'utf8'))).toMatchObject({
      subject: 'sums',
      predicted: expect.stringMatching(/^[ABCD]$/),
      answer: 'A',
    })
  })

  it.each([
    [{ model: 'absent', dataset: 'rows' }, 404, 'model'],
    [{ model: 'anneal-tiny', dataset: 'absent' }, 404, 'dataset'],
    [{ model: 'anneal-tiny' }, 400, 'dataset'],
    [{ model: 'anneal-tiny', dataset: 'rows', task: 'small_test' }, 400, 'task'],
    [{ model: 'anneal-tiny', task: 'absent_test' }, 404, 'task'],
    [{ model: 'anneal-tiny', task: '../small_test' }, 400, 'task'],
    [{ model: [], dataset: 'rows' }, 400, 'model'],
    [{ model: 'anneal-tiny', dataset: 'rows', max_new_tokens: 0 }, 400, 'max_new_tokens'],
    [{ model: 'anneal-tiny', dataset: 'rows', unknown: 1 }, 400, 'unknown'],
  ])('refuses %j before anything is queued', async (request, status, param) => {
    const before = (await call('/v1/evaluations')).body.data.length
    expect(await call('/v1/evaluations', request)).toMatchObject({ status, body: { error: { param } } })
    expect((await call('/v1/evaluations')).body.data).toHaveLength(before)
  })
})

describe('predict_with_generate', () => {
  it('lets a finished run answer its evaluation set, and refuses to without one', async () => {
    const shared = ['train', 'model=anneal-tiny', 'dataset=rows', 'max_steps=1', 'predict_with_generate=true']
    const outputDir = join(root, 'saves/predicting')
    const words = [...shared, 'eval_dataset=rows', 'max_new_tokens=8', `output_dir=${outputDir}`, '--json']
    const [refused, done] = await Promise.all([anneal(shared, { env }), anneal(words, { env })])
    expect(refused).toMatchObject({ code: 1, stderr: expect.stringContaining('needs `eval_dataset`') })
    expect(done.code).toBe(0)
    const results = JSON.parse(readFileSync(join(outputDir, 'all_results.json'), 'utf8'))
    expect(results).toMatchObject({ train_loss: expect.any(Number), 'predict_rouge-l': expect.any(Number) })
    expect(JSON.parse(done.stdout).metrics).toMatchObject({ 'predict_bleu-4': results['predict_bleu-4'] })
    const lines = readFileSync(join(outputDir, 'generated_predictions.jsonl'), 'utf8').trim().split('\n')
    expect(lines.map((line) => JSON.parse(line).label)).toEqual(rows.map(({ output }) => output))

    // The same folder again: no answer of the earlier weights is left, and the log is this run's.
    const stale = lines.map((line) => JSON.stringify({ ...JSON.parse(line), predict: 'stale' })).join('\n')
    for (const how of ['overwrite_output_dir=true', 'max_steps=2']) {
      writeFileSync(join(outputDir, 'generated_predictions.jsonl'), `${stale}\n`)
      const again = await anneal([...words, how], { env })
      expect(again.code).toBe(0)
      expect(readFileSync(join(outputDir, 'generated_predictions.jsonl'), 'utf8')).not.toContain('stale')
      expect(readFileSync(join(outputDir, 'running_log.txt'), 'utf8')).toContain('finished')
    }
  })
})

describe('anneal eval', () => {
  it('prints the models side by side', async () => {
    const { code, stdout } = await anneal(
      ['eval', 'anneal-tiny', 'other', '--dataset', 'rows', '--no-generate'],
      { env },
    )
    expect({ code, stdout }).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/\| eval_loss \| (\S+) \| \1 \|/),
    })
  })
})

async function trainingLoss(): Promise<number> {
  const tokenizer = loadTokenizer(ANNEAL_TINY)
  const template = resolveChatTemplate(tokenizer)
  const examples = rows.map(({ instruction, output }) => {
    const messages = [
      { role: 'user' as const, content: instruction },
      { role: 'assistant' as const, content: output },
    ]
    return encodeConversation({ kind: 'chat', messages }, tokenizer, { template, cutoffLength: 512 })
  })
  const model = openModel(ANNEAL_TINY)
  const step = await CompiledStep.create(model, {
    method: { kind: 'full' },
    maxLength: 512,
    initialize: (name) => model.weights.readFloat32(name),
  })
  try {
    const options = { batchSize: 2, padId: tokenizer.padTokenId }
    return (await evaluateExamples(step, [{ examples }], languageModel, options)).eval_loss!
  } finally {
    await step.release()
    model.weights.close()
  }
}
