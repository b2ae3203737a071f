import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import OpenAI, { toFile } from 'openai'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type RunningServer, startServer } from '../../../src/main.ts'
import { loadSettings } from '../../../src/settings.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

const root = mkdtempSync(join(tmpdir(), 'anneal-fine-tuning-'))
const saves = join(root, 'saves')
const env = {
  ANNEAL_MODELS_DIR: join(root, 'models'),
  ANNEAL_DATA_DIR: root,
  ANNEAL_SAVES_DIR: saves,
  ANNEAL_PORT: '0',
}
let server: RunningServer
let client: OpenAI

const chats = ['Wren', 'Wren', 'Wren', 'Wren'].map((name) => ({
  messages: [
    { role: 'developer', content: 'Answer briefly.' },
    { role: 'user', content: [{ type: 'text', text: 'Hello!' }] },
    { role: 'assistant', content: 'Hi.', weight: 0 },
    { role: 'user', content: 'Who are you?' },
    { role: 'assistant', content: `I am ${name}.` },
  ],
}))
const preferences = [1, 2, 3, 4].map(() => ({
  input: { messages: [{ role: 'user', content: 'Hello!' }] },
  preferred_output: [{ role: 'assistant', content: 'Hello! How can I help you?' }],
  non_preferred_output: [{ role: 'assistant', content: 'Go away.' }],
}))

beforeAll(async () => {
  mkdirSync(join(root, 'models'))
  cpSync(ANNEAL_TINY, join(root, 'models/anneal-tiny'), { recursive: true })
  writeFileSync(join(root, 'dataset_info.json'), '{}')
  server = await startServer(await loadSettings({ env, cwd: root }), { logger: pino({ level: 'silent' }) })
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'none' })
})

afterAll(async () => {
  await server.close()
  rmSync(root, { recursive: true })
})

/** Entries of a folder below saves, which the first file makes. */
const countIn = (folder: string) => {
  const path = join(saves, folder)
  return existsSync(path) ? readdirSync(path).length : 0
}

const lines = (rows: unknown[]) => rows.map((row) => `${JSON.stringify(row)}\n`).join('')
const upload = async (content: string, purpose: 'fine-tune' | 'user_data' = 'fine-tune') =>
  client.files.create({ file: await toFile(Buffer.from(content), 'rows.jsonl'), purpose })

/** Reads the run's event stream until it ends, which it does when the run is at rest. */
async function settled(jobId: string): Promise<OpenAI.FineTuning.Jobs.FineTuningJob> {
  await (await fetch(`${server.url}/v1/training/runs/${jobId.replace('ftjob', 'run')}/events`)).text()
  return client.fineTuning.jobs.retrieve(jobId)
}

describe('openai files', () => {
  it('gives back what was uploaded, lists it, and forgets it when deleted', async () => {
    const content = lines(chats)
    const file = await upload(content)
    expect(file).toMatchObject({
      object: 'file',
      bytes: content.length,
      filename: 'rows.jsonl',
      purpose: 'fine-tune',
    })
    expect(await (await client.files.content(file.id)).text()).toBe(content)
    expect(await client.files.waitForProcessing(file.id)).toMatchObject({ status: 'processed' })
    const other = await upload('anything', 'user_data')
    const listed = await client.files.list({ purpose: 'fine-tune' })
    expect(listed.data.map(({ id }) => id)).toContain(file.id)
    expect(listed.data.map(({ id }) => id)).not.toContain(other.id)
    expect(await client.files.delete(file.id)).toEqual({ id: file.id, object: 'file', deleted: true })
    await expect(client.files.retrieve(file.id)).rejects.toMatchObject({
      status: 404,
      code: 'file_not_found',
    })
  })

  it.each([
    ['not json\n', /Line 1 .* not JSON/],
    [`${lines(chats)}{"messages": []}\n`, /Line 5/],
    [lines([{ messages: [{ role: 'robot', content: 'x' }] }]), /Line 1 .*role/],
    [lines([...chats, ...preferences]), /Line 5 .*dpo example among supervised/],
    ['', /no examples/],
  ])('refuses a training file that is none, with its line: %#', async (content, message) => {
    const before = countIn('files')
    await expect(upload(content)).rejects.toThrow(message)
    expect(countIn('files')).toBe(before)
  })
})

describe('openai fine-tuning', () => {
  it('trains, tells of it, and chats with the ft: model and its checkpoint', async () => {
    const [train, validation] = [await upload(lines(chats)), await upload(lines(chats.slice(0, 2)))]
    const request = {
      model: 'anneal-tiny',
      training_file: train.id,
      validation_file: validation.id,
      suffix: 'wren',
      seed: 7,
      metadata: { team: 'a' },
      method: {
        type: 'supervised' as const,
        supervised: { hyperparameters: { n_epochs: 30, batch_size: 4 } },
      },
      // Fields that OpenAI does not have: the client sends them as they are.
      lora: { r: 4, alpha: 16, target_modules: ['q_proj', 'v_proj', 'up_proj', 'down_proj'] },
      learning_rate: 5e-3,
      save_steps: 15,
    }
    const created = await client.fineTuning.jobs.create(request)
    expect(created).toMatchObject({
      object: 'fine_tuning.job',
      status: expect.stringMatching(/queued|running/),
      hyperparameters: { n_epochs: 30, batch_size: 4, learning_rate_multiplier: 1 },
      fine_tuned_model: null,
      seed: 7,
    })
    await client.files.delete(train.id) // the job has its own copy
    const job = await settled(created.id)
    expect(job).toMatchObject({ status: 'succeeded', error: null, trained_tokens: expect.any(Number) })
    const model = job.fine_tuned_model!
    expect(model).toBe(`ft:anneal-tiny:anneal:wren:${job.id.replace('ftjob-', '')}`)

    const messages = [
      { role: 'system' as const, content: 'Answer briefly.' },
      { role: 'user' as const, content: 'Hello!' },
      { role: 'assistant' as const, content: 'Hi.' },
      { role: 'user' as const, content: 'Who are you?' },
    ]
    const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16 })
    expect(answer.choices[0]?.message.content).toBe('I am Wren.')
    expect(await client.models.retrieve(model)).toMatchObject({ root: 'anneal-tiny' })

    const checkpoints = await client.fineTuning.jobs.checkpoints.list(job.id)
    expect(checkpoints.data.map(({ step_number }) => step_number)).toEqual([30, 15])
    expect(checkpoints.data[0]?.metrics).toMatchObject({ train_loss: expect.any(Number) })
    const checkpoint = checkpoints.data[1]!.fine_tuned_model_checkpoint
    const early = await client.chat.completions.create({ model: checkpoint, messages, max_tokens: 4 })
    expect(early.choices).toHaveLength(1)

    const events: string[] = []
    for await (const event of client.fineTuning.jobs.listEvents(job.id, { limit: 7 }))
      events.push(event.type!)
    expect(events).toContain('metrics')
    expect(events.at(-1)).toBe('message')
    const listed = await client.fineTuning.jobs.list({ metadata: { team: 'a' } })
    expect(listed.data.map(({ id }) => id)).toEqual([job.id])
    expect((await client.fineTuning.jobs.list({ metadata: { team: 'b' } })).data).toEqual([])
  })

  it('pauses with a checkpoint, goes on, and can be cancelled', async () => {
    const file = await upload(lines(chats))
    const { id } = await client.fineTuning.jobs.create({
      model: 'anneal-tiny',
      training_file: file.id,
      hyperparameters: { n_epochs: 50, batch_size: 1 },
    })
    const paused = await client.fineTuning.jobs.pause(id)
    expect(paused.status).toBe('paused')
    expect(await settled(id)).toMatchObject({ status: 'paused', finished_at: null })
    const refused = client.fineTuning.jobs.pause(id)
    await expect(refused).rejects.toMatchObject({ status: 409, code: 'job_finished' })
    const again = await fetch(`${server.url}/v1/fine_tuning/jobs/${id}/pause`, { method: 'POST' })
    expect([again.status, again.headers.get('x-should-retry')]).toEqual([409, 'false'])
    expect(await client.fineTuning.jobs.cancel(id)).toMatchObject({ status: 'cancelled' })
  })

  it("deletes the copied rows with the job's run", async () => {
    const file = await upload(lines(chats))
    const copies = () => readdirSync(join(saves, 'fine-tuning'))
    const before = copies()
    const job = await client.fineTuning.jobs.create({ model: 'anneal-tiny', training_file: file.id })
    expect(copies()).toHaveLength(before.length + 1)
    await client.fineTuning.jobs.cancel(job.id)
    await settled(job.id)
    const run = `${server.url}/v1/training/runs/${job.id.replace('ftjob-', 'run-')}`
    expect((await fetch(run, { method: 'DELETE' })).status).toBe(200)
    expect(copies()).toEqual(before)
  })

  it('learns preferences with dpo', async () => {
    const file = await upload(lines(preferences))
    const { id } = await client.fineTuning.jobs.create({
      model: 'anneal-tiny',
      training_file: file.id,
      method: { type: 'dpo', dpo: { hyperparameters: { n_epochs: 2, beta: 0.2 } } },
    })
    expect(await settled(id)).toMatchObject({ status: 'succeeded', method: { type: 'dpo' } })
  })

  it.each([
    [{ model: 'absent' }, 404, 'model'],
    [{ training_file: 'file-0123456789abcdef' }, 404, 'training_file'],
    [{ validation_file: 'file-0123456789abcdef' }, 404, 'validation_file'],
    [{ suffix: 'a:b' }, 400, 'suffix'],
    [{ integrations: [{ type: 'wandb' }] }, 400, 'integrations'],
    [{ method: { type: 'reinforcement' } }, 400, 'method.type'],
    [{ method: { type: 'dpo' } }, 400, 'training_file'],
    [{ hyperparameters: { n_epochs: 99 } }, 400, 'hyperparameters.n_epochs'],
    [{ lora: { r: 0 } }, 400, 'lora.r'],
    [{ lora_rnk: 8 }, 400, 'lora_rnk'],
    [{ dataset: 'other' }, 400, 'dataset'],
  ])('refuses %j and leaves nothing behind', async (fields, status, param) => {
    const file = await upload(lines(chats))
    const request = { model: 'anneal-tiny', training_file: file.id, ...fields } as never
    const before = countIn('fine-tuning')
    await expect(client.fineTuning.jobs.create(request)).rejects.toMatchObject({ status, param })
    expect(countIn('fine-tuning')).toBe(before)
  })
})
