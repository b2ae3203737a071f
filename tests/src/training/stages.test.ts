import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { WeightFolder } from '../../../engine/weights/safetensors.ts'
import { trainTask } from '../../../src/tasks/train.ts'
import { tinyLlama } from '../engine-host/tiny-llama.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-stages-'))
const write = (name: string, content: unknown) => writeFileSync(join(folder, name), JSON.stringify(content))
write(
  'pairs.json',
  Array.from({ length: 6 }, (_, n) => ({ instruction: `say ${n}`, good: `it is ${n}`, bad: `${n}?` })),
)
write(
  'verdicts.json',
  Array.from({ length: 6 }, (_, n) => ({ instruction: `say ${n}`, output: `it is ${n}`, good: n % 2 === 0 })),
)
write('dataset_info.json', {
  pairs: {
    file_name: 'pairs.json',
    ranking: true,
    columns: { prompt: 'instruction', chosen: 'good', rejected: 'bad' },
  },
  verdicts: {
    file_name: 'verdicts.json',
    columns: { prompt: 'instruction', response: 'output', kto_tag: 'good' },
  },
})

/** Runs the task that a job's child process runs; returns the run's folder and what it reported. */
async function train(fields: Record<string, unknown>) {
  const outputDir = mkdtempSync(join(tmpdir(), 'anneal-stages-run-'))
  const baseFolder = tinyLlama()
  const config = parseTrainConfig({
    model: 'tiny',
    max_steps: 4,
    logging_steps: 2,
    lora_rank: 2,
    learning_rate: 0.01,
    per_device_train_batch_size: 2,
    ...fields,
  })
  const events: { type: string; message: string; data?: object }[] = []
  await trainTask({
    job: {
      id: 'run-1',
      kind: 'train',
      resolved: { model: { id: 'tiny', root: 'tiny', baseFolder }, config, datasetDir: folder },
      outputDir,
      attempt: 1,
    },
    signal: new AbortController().signal,
    report: (type, message, data) => events.push({ type, message, data }),
  })
  const state = JSON.parse(readFileSync(join(outputDir, 'trainer_state.json'), 'utf8'))
  return { outputDir, events, history: state.log_history as Record<string, number>[] }
}

describe('a run of each preference stage', () => {
  it.each([
    [
      'dpo',
      'pairs',
      ['rewards/chosen', 'rewards/rejected', 'rewards/accuracies', 'rewards/margins', 'logps/chosen'],
    ],
    ['kto', 'verdicts', ['rewards/chosen', 'rewards/rejected', 'rewards/margins', 'logps/rejected', 'kl']],
    ['rm', 'pairs', ['rewards/chosen', 'rewards/rejected', 'rewards/accuracies', 'rewards/margins']],
  ] as const)(
    '%s logs its metrics, evaluates them, draws them, and writes an adapter',
    async (stage, dataset, metrics) => {
      const run = await train({ stage, dataset, val_size: 2, eval_steps: 4 })
      const [first] = run.history
      for (const metric of metrics) {
        expect(first![metric]).toEqual(expect.any(Number))
        expect(run.history.some((entry) => `eval_${metric}` in entry)).toBe(true)
      }
      const logged = run.events.find(({ type, message }) => type === 'log' && message.startsWith('Step 2'))
      expect(logged?.data).toMatchObject({ 'rewards/margins': expect.any(Number) })
      const files = readdirSync(run.outputDir)
      expect(files).toEqual(
        expect.arrayContaining(['adapter_model.safetensors', 'training_rewards_chosen.png']),
      )
      expect(files.includes('value_head.safetensors')).toBe(stage === 'rm')
    },
  )

  it.each(['dpo', 'kto'] as const)('%s compares with the same start after a resume', async (stage) => {
    const fields = {
      stage,
      dataset: stage === 'dpo' ? 'pairs' : 'verdicts',
      save_steps: 2,
      lora_dropout: 0.2,
    }
    const whole = await train(fields)
    const from = join(whole.outputDir, 'checkpoint-2')
    const resumed = await train({ ...fields, resume_from_checkpoint: from })
    const adapter = (folder: string) => readFileSync(join(folder, 'adapter_model.safetensors'))
    expect(adapter(resumed.outputDir).equals(adapter(whole.outputDir))).toBe(true)
    expect(adapter(from).equals(adapter(whole.outputDir))).toBe(false)
  })

  it("rm writes TRL's value head into the result and each checkpoint", async () => {
    const { outputDir } = await train({ stage: 'rm', dataset: 'pairs' })
    for (const place of [outputDir, join(outputDir, 'checkpoint-4')]) {
      const head = WeightFolder.open(place, { fileName: 'value_head.safetensors' })
      expect(head.entry('v_head.summary.weight').shape).toEqual([1, 16])
      expect(head.entry('v_head.summary.bias').shape).toEqual([1])
      head.close()
      const adapter = WeightFolder.open(place, { fileName: 'adapter_model.safetensors' })
      expect([...adapter.entries.keys()].filter((name) => !name.includes('.lora_'))).toEqual([])
      adapter.close()
    }
  })

  it('dpo trains all weights too, and a value head beside all weights', async () => {
    for (const stage of ['dpo', 'rm']) {
      const { outputDir } = await train({
        stage,
        dataset: 'pairs',
        finetuning_type: 'full',
        learning_rate: 1e-3,
      })
      expect(readdirSync(outputDir)).toContain('model.safetensors')
    }
  })
})
