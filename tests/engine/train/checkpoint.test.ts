import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { latestCheckpoint, listCheckpoints, loadCheckpoint } from '../../../engine/train/checkpoint.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { train } from '../../../engine/train/loop.ts'
import { planOutput, prepareOutput } from '../../../engine/train/output-dir.ts'
import { bigramStep, PAD, randomExamples } from './bigram-step.ts'

let outputDir: string
beforeEach(() => {
  outputDir = mkdtempSync(join(tmpdir(), 'anneal-checkpoint-'))
})
afterEach(() => rmSync(outputDir, { recursive: true, force: true }))

const config = (fields: Record<string, unknown> = {}) =>
  parseTrainConfig({ model: 'm', dataset: 'd', max_steps: 3, save_steps: 1, logging_steps: 1, ...fields })

/** Leaves checkpoint-1 to checkpoint-3. */
async function runThrough(fields: Record<string, unknown> = {}): Promise<void> {
  const events = train({
    config: config(fields),
    step: bigramStep(),
    examples: randomExamples(4),
    padId: PAD,
    outputDir,
    allParameters: 56,
    writeModel: (folder) => writeFileSync(join(folder, 'adapter_model.safetensors'), 'weights'),
  })
  for await (const _ of events);
}

const at = (step: number, file = '') => join(outputDir, `checkpoint-${step}`, file)
const shorten = (path: string) => truncateSync(path, readFileSync(path).length - 1)

describe('a checkpoint', () => {
  it("has the files that LLaMA-Factory's has, as safetensors, JSON and YAML", async () => {
    await runThrough()
    expect(readdirSync(at(2)).sort()).toEqual([
      'adapter_model.safetensors',
      'manifest.json',
      'optimizer.safetensors',
      'rng_state.json',
      'run_state.json',
      'scheduler.json',
      'trainer_state.json',
      'training_args.yaml',
    ])
    const state = JSON.parse(readFileSync(at(2, 'trainer_state.json'), 'utf8'))
    expect(state).toMatchObject({
      global_step: 2,
      max_steps: 3,
      is_world_process_zero: true,
      best_metric: null,
    })
    expect(state.log_history.map(({ step }: { step: number }) => step)).toEqual([1, 2])
    expect(Object.keys(state.log_history[0]).sort()).toEqual([
      'epoch',
      'grad_norm',
      'learning_rate',
      'loss',
      'step',
    ])
  })

  it('is listed with its losses and size', async () => {
    await runThrough()
    const [, second] = listCheckpoints(outputDir)
    expect(second).toMatchObject({ step: 2, path: at(2), epoch: 2, evalLoss: null, resumable: true })
    expect(second!.loss).toBeGreaterThan(0)
    expect(second!.bytes).toBeGreaterThan(1000)
    expect(listCheckpoints(join(outputDir, 'absent'))).toEqual([])
  })

  it.each(['optimizer.safetensors', 'run_state.json', 'adapter_model.safetensors'])(
    'is passed over when %s is cut short or gone',
    async (file) => {
      await runThrough()
      expect(latestCheckpoint(outputDir)).toBe(at(3))
      shorten(at(3, file))
      expect(latestCheckpoint(outputDir)).toBe(at(2))
      rmSync(at(2, file))
      expect(latestCheckpoint(outputDir)).toBe(at(1))
    },
  )

  it('is passed over when a byte of it changed', async () => {
    await runThrough()
    const bytes = readFileSync(at(3, 'optimizer.safetensors'))
    bytes[bytes.length - 1]! ^= 1
    writeFileSync(at(3, 'optimizer.safetensors'), bytes)
    expect(latestCheckpoint(outputDir)).toBe(at(2))
    expect(() => loadCheckpoint(at(3), bigramStep().parameters)).toThrow(/damaged.*optimizer\.safetensors/)
  })

  it('says which tensor differs when it belongs to another run', async () => {
    await runThrough()
    const [table, bias] = bigramStep().parameters
    const other = { ...table!, shape: [2, 7] }
    expect(() => loadCheckpoint(at(3), [other, bias!])).toThrow(
      /table\.weight has shape \[7,7\], this run needs \[2,7\]/,
    )
    expect(() => loadCheckpoint(at(3), [table!])).toThrow(/also holds head\.bias/)
  })

  it('leaves nothing when writing the model fails', async () => {
    const events = train({
      config: config(),
      step: bigramStep(),
      examples: randomExamples(4),
      padId: PAD,
      outputDir,
      allParameters: 56,
      writeModel: () => {
        throw new Error('disk gone')
      },
    })
    await expect(async () => {
      for await (const _ of events);
    }).rejects.toThrow('disk gone')
    expect(readdirSync(outputDir)).toEqual([])
  })
})

describe("a run's output folder", () => {
  const plain = { overwrite_output_dir: false, resume_from_checkpoint: undefined }
  const sentence = 'Output directory already exists and is not empty. Please set `overwrite_output_dir`.'

  it('may be missing, empty, or hold only what an attempt leaves before its first checkpoint', () => {
    expect(planOutput(join(outputDir, 'absent'), plain)).toEqual({ action: 'create' })
    expect(planOutput(outputDir, plain)).toEqual({ action: 'create' })
    for (const name of ['trainer_log.jsonl', 'training_args.yaml']) writeFileSync(join(outputDir, name), '')
    expect(planOutput(outputDir, plain)).toEqual({ action: 'create' })
  })

  it("is refused with LLaMA-Factory's sentence when something else is in it", () => {
    writeFileSync(join(outputDir, 'adapter_model.safetensors'), '')
    expect(() => planOutput(outputDir, plain)).toThrow(sentence)
    expect(() => planOutput(outputDir, plain)).toThrow(
      expect.objectContaining({ kind: 'conflict', param: 'overwrite_output_dir' }),
    )
  })

  it('with checkpoints goes on from the last whole one, unless told not to', async () => {
    await runThrough()
    shorten(at(3, 'run_state.json'))
    expect(planOutput(outputDir, plain)).toEqual({ action: 'resume', checkpoint: at(2) })
    expect(planOutput(outputDir, { ...plain, resume_from_checkpoint: true })).toEqual({
      action: 'resume',
      checkpoint: at(2),
    })
    expect(() => planOutput(outputDir, { ...plain, resume_from_checkpoint: false })).toThrow(sentence)
  })

  it('says that checkpoints of save_only_model cannot be resumed', async () => {
    await runThrough({ save_only_model: true })
    expect(() => planOutput(outputDir, plain)).toThrow(/save_only_model/)
    expect(() => planOutput(outputDir, { ...plain, resume_from_checkpoint: true })).toThrow(
      /No valid checkpoint.*save_only_model/,
    )
    expect(() => planOutput(outputDir, { ...plain, resume_from_checkpoint: 'checkpoint-2' })).toThrow(
      /save_only_model/,
    )
  })

  it('takes an explicit checkpoint by path or name, even with overwrite_output_dir, and drops the later ones', async () => {
    await runThrough()
    for (const from of [at(2), 'checkpoint-2']) {
      const plan = planOutput(outputDir, { overwrite_output_dir: true, resume_from_checkpoint: from })
      expect(plan).toEqual({ action: 'resume', checkpoint: at(2) })
      prepareOutput(outputDir, plan)
    }
    expect(readdirSync(outputDir).sort()).toEqual(['checkpoint-1', 'checkpoint-2'])
    const missing = { ...plain, resume_from_checkpoint: 'checkpoint-9' }
    expect(() => planOutput(outputDir, missing)).toThrow(
      expect.objectContaining({
        kind: 'not_found',
        message: expect.stringContaining(join(outputDir, 'checkpoint-9')),
      }),
    )
  })

  it("loses a run's files, and no others, to overwrite_output_dir", async () => {
    await runThrough()
    mkdirSync(join(outputDir, 'my notes'))
    writeFileSync(join(outputDir, 'thesis.tex'), '')
    writeFileSync(join(outputDir, 'trainer_log.jsonl'), '')
    const plan = planOutput(outputDir, { ...plain, overwrite_output_dir: true })
    prepareOutput(outputDir, plan)
    expect(readdirSync(outputDir).sort()).toEqual(['my notes', 'thesis.tex'])
  })

  it('that is a model of its own, and no run, is not overwritten', () => {
    for (const name of ['config.json', 'model.safetensors']) writeFileSync(join(outputDir, name), '{}')
    expect(() => planOutput(outputDir, { ...plain, overwrite_output_dir: true })).toThrow(
      expect.objectContaining({ code: 'output_dir_not_a_run', param: 'output_dir' }),
    )
    writeFileSync(join(outputDir, 'trainer_state.json'), '{}')
    const plan = planOutput(outputDir, { ...plain, overwrite_output_dir: true })
    prepareOutput(outputDir, plan)
    expect(readdirSync(outputDir)).toEqual([])
  })

  it('of an interrupted run is never overwritten by its next attempt', async () => {
    await runThrough()
    const overwriting = { ...plain, overwrite_output_dir: true }
    expect(planOutput(outputDir, overwriting, true)).toEqual({ action: 'resume', checkpoint: at(3) })
    expect(existsSync(at(3))).toBe(true)
  })
})
