import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mergeAdapter } from '../../../engine/adapter/merge.ts'
import { Decoder, type DecoderAdapter } from '../../../engine/generate/decoder.ts'
import { Scheduler } from '../../../engine/generate/scheduler.ts'
import type { GenerationRequest } from '../../../engine/generate/sequence.ts'
import { openModel } from '../../../engine/models/index.ts'
import { type Device, parseDevice } from '../../../engine/onnx/device.ts'
import { CompiledStep } from '../../../engine/train/compiled-step.ts'
import type { TokenBatch } from '../../../engine/train/step.ts'
import type { LoraMethod } from '../../../engine/train/training-method.ts'
import { collect, fakeRequest } from '../../engine/generate/fake-decoder.ts'
import { useSoftwareGpu } from '../../webgpu.ts'
import { type FamilyCase, loraModule, readCase, writeCaseAdapter, writeModel } from './reference-model.ts'

/** PARITY_DEVICE=webgpu compares another device's numbers, within the same bounds. */
const device = parseDevice(process.env.PARITY_DEVICE ?? 'cpu') as Device
if (device.kind === 'webgpu') useSoftwareGpu()
const LOGITS_BOUND = 1e-4
const GRADIENT_BOUND = 1e-3
/** Labels begin here in make.py. */
const FIRST_LABEL = 3

const names = readdirSync(import.meta.dirname)
  .filter((name) => name.endsWith('.json'))
  .map((name) => name.replace(/\.json$/, ''))

/** Largest difference over the range of what is expected. */
function relativeError(actual: readonly number[], expected: readonly number[]): number {
  expect(actual.length).toBe(expected.length)
  const range = Math.max(...expected) - Math.min(...expected)
  return Math.max(...expected.map((value, i) => Math.abs(value - actual[i]!))) / range
}

const rowsOf = ({ inputIds, lengths }: FamilyCase) =>
  inputIds.map((row, index) => Int32Array.from(row.slice(0, lengths[index])))

/** Logits of all tokens of all rows, each row in one run over an empty cache. */
async function allLogits(
  decoder: Decoder,
  reference: FamilyCase,
  adapter?: DecoderAdapter,
): Promise<number[]> {
  const logits: number[] = []
  for (const row of rowsOf(reference)) {
    const places = [...row.keys()]
    logits.push(...(await decoder.logitsAt(row, decoder.createCache(), places, adapter)))
  }
  return logits
}

/** The same in runs of `size` tokens over a cache with places to spare. */
async function steppedLogits(decoder: Decoder, reference: FamilyCase, size: number): Promise<number[]> {
  const logits: number[] = []
  for (const row of rowsOf(reference)) {
    const cache = decoder.createCache(40)
    for (let start = 0; start < row.length; start += size) {
      const part = row.slice(start, start + size)
      logits.push(...(await decoder.logitsAt(part, cache, [...part.keys()])))
    }
  }
  return logits
}

function batchOf({ inputIds, lengths }: FamilyCase): TokenBatch {
  const length = inputIds[0]!.length
  const trained = inputIds.flatMap((row, index) =>
    row.flatMap((id, place) =>
      place >= FIRST_LABEL && place < lengths[index]! ? [{ at: index * length + place - 1, id }] : [],
    ),
  )
  return {
    rows: inputIds.length,
    length,
    inputIds: BigInt64Array.from(inputIds.flat(), BigInt),
    trainedPositions: BigInt64Array.from(trained, ({ at }) => BigInt(at)),
    labels: BigInt64Array.from(trained, ({ id }) => BigInt(id)),
    tokens: lengths.reduce((sum, count) => sum + count, 0),
  }
}

/** Fewer tokens than there are experts. */
const TWO_TOKENS = {
  rows: 1,
  length: 2,
  inputIds: BigInt64Array.of(5n, 7n),
  trainedPositions: BigInt64Array.of(1n),
  labels: BigInt64Array.of(3n),
  tokens: 2,
}

const pathOf = (name: string) => /^base_model\.model\.(.*)\.lora_[AB]\.weight$/.exec(name)![1]!

async function compileStep(
  folder: string,
  reference: FamilyCase,
  options: Partial<LoraMethod> = {},
  checkpointing = false,
) {
  const { rank, scale, linear, experts } = reference
  return CompiledStep.create(openModel(folder), {
    session: { device },
    method: { kind: 'lora', rank, scale, dropout: 0, targets: [...linear, ...experts], ...options },
    maxLength: 32,
    checkpointing,
    initialize: (name) => {
      const { a, b } = loraModule(reference, pathOf(name))
      return name.endsWith('lora_A.weight') ? a : b
    },
  })
}

describe.each(names)('%s', (name) => {
  const reference = readCase(name)
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-family-'))
  const folder = writeModel(join(scratch, 'model'), reference)
  const adapterFolder = writeCaseAdapter(join(scratch, 'adapter'), reference)
  let decoder: Decoder
  beforeAll(async () => {
    decoder = await Decoder.load(folder, { device })
  })
  afterAll(async () => {
    await decoder.release()
    rmSync(scratch, { recursive: true })
  })

  it("answers with the reference's logits, in one run and token by token over a cache with places to spare", async () => {
    expect(relativeError(await allLogits(decoder, reference), reference.logits)).toBeLessThan(LOGITS_BOUND)
    for (const size of [1, 5]) {
      const stepped = await steppedLogits(decoder, reference, size)
      expect(relativeError(stepped, reference.logits)).toBeLessThan(LOGITS_BOUND)
    }
  })

  it('answers a request alike alone and in a batch of unequal lengths, with the adapter in one of them', async () => {
    const adapter = await decoder.loadAdapter(adapterFolder)
    const [long] = rowsOf(reference)
    const requests = [3, 9, 14].map((length, index) => ({
      ...fakeRequest(''),
      prompt: long!.slice(0, length),
      maxTokens: 12,
      ignoreEos: true,
      ...(index === 1 ? { adapter } : {}),
    }))
    const tokensOf = async (scheduler: Scheduler, request: GenerationRequest) =>
      (await collect(scheduler.submit(request))).flatMap((event) =>
        event.type === 'text' ? (event.tokenIds ?? []) : [],
      )
    const alone: number[][] = []
    for (const request of requests) alone.push(await tokensOf(new Scheduler(decoder), request))
    const together = new Scheduler(decoder)
    const batched = await Promise.all(requests.map((request) => tokensOf(together, request)))
    expect(alone.map(({ length }) => length)).toEqual([12, 12, 12])
    expect(batched).toEqual(alone)
  })

  it('answers alike with the adapter beside the base and merged into it', async () => {
    const beside = await allLogits(decoder, reference, await decoder.loadAdapter(adapterFolder))
    expect(relativeError(beside, reference.adaptedLogits)).toBeLessThan(LOGITS_BOUND)
    expect(relativeError(reference.logits, reference.adaptedLogits)).toBeGreaterThan(1e-2)
    const outputFolder = join(scratch, 'merged')
    await mergeAdapter({ baseFolder: folder, adapterFolder, outputFolder })
    const merged = await Decoder.load(outputFolder, { device })
    const logits = await allLogits(merged, reference)
    await merged.release()
    expect(relativeError(logits, reference.adaptedLogits)).toBeLessThan(LOGITS_BOUND)
  })

  it.each([false, true])(
    "trains with the reference's loss and gradients, checkpointing %s",
    async (checkpointing) => {
      const step = await compileStep(folder, reference, {}, checkpointing)
      const batch = batchOf(reference)
      const { loss, gradients } = await step.run(batch, 1 / batch.labels.length)
      await step.release()
      expect(Math.abs(loss - reference.loss)).toBeLessThan(1e-5 * reference.loss)
      expect(step.parameters.length).toBe(Object.keys(reference.gradients).length)
      for (const [index, { name: parameter }] of step.parameters.entries()) {
        const [norm, sum] =
          reference.gradients[parameter.replace(/^base_model\.model\./, '').replace(/\.weight$/, '')]!
        const actual = gradients[index]!
        expect(Math.abs(Math.hypot(...actual) - norm)).toBeLessThan(GRADIENT_BOUND * Math.max(norm, 1e-4))
        expect(Math.abs(actual.reduce((total, value) => total + value, 0) - sum)).toBeLessThan(
          GRADIENT_BOUND * Math.max(norm, 1e-4),
        )
      }
    },
  )

  const itRoutes = reference.experts.length > 0 ? it : () => {}
  itRoutes('leaves experts alone that no token was sent to', async () => {
    const step = await compileStep(folder, reference)
    const { gradients } = await step.run({ ...batchOf(reference), ...TWO_TOKENS }, 1)
    await step.release()
    const largest = gradients.map((gradient) => Math.max(...gradient.map(Math.abs)))
    const untouched = step.parameters
      .filter((_, index) => largest[index] === 0)
      .map((parameter) => parameter.name)
    expect(largest.every(Number.isFinite)).toBe(true)
    expect(untouched.length).toBeGreaterThan(0)
    expect(untouched.every((parameter) => parameter.includes('.experts.'))).toBe(true)
  })

  it("adapts with lora_target 'all' what PEFT's all-linear does", async () => {
    const step = await compileStep(folder, reference, { targets: 'all' })
    await step.release()
    const paths = [...new Set(step.parameters.map((parameter) => pathOf(parameter.name)))]
    expect(paths.sort()).toEqual([...reference.linear].sort())
  })
})

describe('weights that a config leaves out', () => {
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-family-'))
  afterAll(() => rmSync(scratch, { recursive: true }))
  const llama = readCase('llama-linear-rope-and-biases')
  const cases: [string, Partial<FamilyCase['config']>, RegExp][] = [
    ['biases', { mlp_bias: false }, /gate_proj\.bias/],
    ['more layers', { num_hidden_layers: 1 }, /model\.layers\.1\./],
  ]
  it.each(cases)('%s are refused by their names', async (name, fields, message) => {
    const folder = writeModel(join(scratch, name), { ...llama, config: { ...llama.config, ...fields } })
    await expect(Decoder.load(folder, { device })).rejects.toThrow(message)
  })
})
