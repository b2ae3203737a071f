import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { addProduct, mergeAdapter } from '../../../engine/adapter/merge.ts'
import { readAdapter } from '../../../engine/adapter/peft.ts'
import { roundTrip } from '../../../engine/quant/round-trip.ts'
import { openBase } from '../../../engine/quant/source.ts'
import { collate } from '../../../engine/train/batch.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { objectiveOf } from '../../../engine/train/objectives/index.ts'
import { baseOfRun } from '../../../src/models/run-base.ts'
import { buildStep } from '../../../src/training/build-step.ts'
import { startWarnings } from '../../../src/training/check-start.ts'
import { deriveBase, overBase, readBegin, writeConverted } from '../../../src/training/derive-base.ts'
import type { TrainTask } from '../../../src/training/task.ts'
import { allWeights } from '../../engine/weights/tiny-model.ts'
import { tinyAdapter, tinyLlama } from '../engine-host/tiny-llama.ts'

const baseFolder = tinyLlama(3)
const adapters = [tinyAdapter(baseFolder, 20), tinyAdapter(baseFolder, 30)]
let outputDir: string
beforeEach(() => {
  outputDir = mkdtempSync(join(tmpdir(), 'anneal-derive-'))
})
afterEach(() => rmSync(outputDir, { recursive: true }))

function task(fields: Record<string, unknown>, given: readonly string[] = []): TrainTask {
  const config = parseTrainConfig({ model: 'tiny', dataset: 'd', lora_rank: 4, ...fields })
  return { model: { id: 'tiny', root: 'tiny', baseFolder }, config, adapters: given, datasetDir: '.' }
}

function worstDifference(a: Map<string, Float32Array>, b: Map<string, Float32Array>): number {
  expect([...a.keys()].sort()).toEqual([...b.keys()].sort())
  return Math.max(
    ...[...a].map(([name, values]) =>
      values.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b.get(name)![i]!)), 0),
    ),
  )
}

async function lossOf(run: TrainTask, folder: string): Promise<number> {
  const base = openBase(folder)
  const objective = objectiveOf(run.config)
  const inputIds = Int32Array.from({ length: 12 }, (_, i) => 97 + ((5 * i) % 26))
  const example = { inputIds, labels: inputIds.slice() }
  const options = { objective, checkpointing: false, lossChunks: 1, begin: readBegin(run, outputDir) }
  const step = await buildStep(base, overBase(run, folder), options, [example])
  const { loss } = await step.evaluate(collate([example], 0), 0.1)
  await step.release()
  base.weights.close()
  return loss
}

describe('rope_scaling', () => {
  const short = tinyLlama(5, 64)
  const stretched = (rope_scaling: string, cutoff_len: number) => {
    const run = task({ rope_scaling, cutoff_len })
    return { ...run, model: { ...run.model, baseFolder: short } }
  }

  it.each([
    ['linear', { rope_type: 'linear', factor: 2 }],
    ['yarn', { rope_type: 'yarn', factor: 2, original_max_position_embeddings: 64 }],
    ['dynamic', { rope_type: 'dynamic', factor: 2, original_max_position_embeddings: 64 }],
    [
      'llama3',
      {
        rope_type: 'llama3',
        factor: 2,
        original_max_position_embeddings: 64,
        low_freq_factor: 1,
        high_freq_factor: 4,
      },
    ],
  ])('%s gives the run a base of the same weights that reads cutoff_len tokens', async (kind, scaling) => {
    const run = stretched(kind, 100)
    const folder = await deriveBase(run, { outputDir })
    expect(baseOfRun(outputDir, short)).toBe(folder)
    const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
    expect(config).toMatchObject({ max_position_embeddings: 128, rope_scaling: scaling })
    expect(worstDifference(allWeights(folder), allWeights(short))).toBe(0)
    expect(openBase(folder).config.maxPositions).toBe(128)
    expect(await deriveBase(run, { outputDir })).toBe(folder)
    const differs = (await lossOf(run, folder)) !== (await lossOf(run, short))
    expect(differs).toBe(kind !== 'dynamic')
  })

  it('changes nothing where the model reads that far, and says so', async () => {
    expect(await deriveBase(stretched('yarn', 64), { outputDir })).toBe(short)
    expect(startWarnings(stretched('yarn', 64))).toMatchObject([{ code: 'rope_scaling_unneeded' }])
    expect(startWarnings(stretched('yarn', 65))).toEqual([])
  })
})

describe('the base of a run', () => {
  it('is the given one unless something is merged or taken out', async () => {
    expect(await deriveBase(task({}), { outputDir })).toBe(baseFolder)
    expect(await deriveBase(task({}, [adapters[0]!]), { outputDir })).toBe(baseFolder)
    expect(baseOfRun(outputDir, baseFolder)).toBe(baseFolder)
  })

  it('has all adapters but the last merged into it, and all of them before a new one', async () => {
    const merged = join(outputDir, 'one')
    await mergeAdapter({ baseFolder, adapterFolder: adapters[0], outputFolder: merged })
    const derived = await deriveBase(task({}, adapters), { outputDir })
    expect(baseOfRun(outputDir, baseFolder)).toBe(derived)
    expect(worstDifference(allWeights(derived), allWeights(merged))).toBe(0)
    await mergeAdapter({
      baseFolder: merged,
      adapterFolder: adapters[1],
      outputFolder: join(outputDir, 'two'),
    })
    const all = await deriveBase(task({ create_new_adapter: true }, adapters), { outputDir })
    expect(worstDifference(allWeights(all), allWeights(join(outputDir, 'two')))).toBeLessThan(1e-5)
  })

  it('together with the last adapter computes what the stacked adapters compute', async () => {
    const run = task({}, adapters)
    const stacked = await lossOf(run, await deriveBase(run, { outputDir }))
    const fresh = task({ create_new_adapter: true }, adapters)
    expect(await lossOf(fresh, await deriveBase(fresh, { outputDir }))).toBeCloseTo(stacked, 4)
  })

  it.each([{ pissa_iter: -1 }, { pissa_iter: 4, use_dora: true }])(
    'with PiSSA %j and its adapter is the given base again',
    async (fields) => {
      const run = task({ pissa_init: true, ...fields })
      const derived = await deriveBase(run, { outputDir })
      const own = allWeights(derived)
      const begun = readAdapter(join(outputDir, 'pissa_init'))
      expect(begun.modules.size).toBe(14)
      expect(begun.config.base_model_name_or_path).toBe(derived)
      for (const [path, module] of begun.modules) addProduct(own.get(`${path}.weight`)!, module)
      expect(worstDifference(own, allWeights(baseFolder))).toBeLessThan(1e-5)
      expect(await lossOf(run, derived)).toBeCloseTo(await lossOf(task({}), baseFolder), 4)
    },
  )

  it('with LoftQ is quantized, and nearer to the given base with its adapter than without', async () => {
    const error = async (fields: Record<string, unknown>) => {
      const run = task({ loftq_init: true, quantization_bit: 4, pissa_iter: -1, ...fields })
      const own = allWeights(await deriveBase(run, { outputDir }))
      const name = 'model.layers.0.mlp.up_proj'
      const quantized = own.get(`${name}.weight`)!
      expect(roundTrip(quantized, [32, 16], 'nf4')).toEqual(quantized)
      const given = allWeights(baseFolder).get(`${name}.weight`)!
      const distance = () => Math.hypot(...quantized.map((value, i) => value - given[i]!))
      const bare = distance()
      addProduct(quantized, readAdapter(join(outputDir, 'loftq_init')).modules.get(name)!)
      return { bare, fitted: distance() }
    }
    const [once, often] = [await error({}), await error({ loftq_iter: 5 })]
    expect(once.fitted).toBeLessThan(0.9 * once.bare)
    expect(often.fitted).toBeLessThan(once.fitted)
  })

  it('is kept when the same run starts again, and made anew for other settings', async () => {
    const first = await deriveBase(task({ pissa_init: true }), { outputDir })
    const marker = join(first, 'marker')
    writeFileSync(marker, '')
    await deriveBase(task({ pissa_init: true }), { outputDir })
    expect(existsSync(marker)).toBe(true)
    await deriveBase(task({ pissa_init: true, lora_rank: 2 }), { outputDir })
    expect(existsSync(marker)).toBe(false)
  })

  it('an untrained PiSSA adapter converts to one that changes nothing', async () => {
    const run = task({ pissa_init: true, pissa_convert: true })
    const derived = await deriveBase(run, { outputDir })
    const base = openBase(derived)
    const objective = objectiveOf(run.config)
    const options = { objective, checkpointing: false, lossChunks: 1, begin: readBegin(run, outputDir) }
    const step = await buildStep(base, overBase(run, derived), options, [])
    writeConverted(run, step.parameters, outputDir)
    await step.release()
    base.weights.close()
    const outputFolder = join(outputDir, 'merged')
    await mergeAdapter({ baseFolder, adapterFolder: join(outputDir, 'pissa_converted'), outputFolder })
    expect(worstDifference(allWeights(outputFolder), allWeights(baseFolder))).toBeLessThan(1e-5)
  })
})
