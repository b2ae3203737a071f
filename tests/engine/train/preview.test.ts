import { describe, expect, it } from 'vitest'
import type { DeviceTraits } from '../../../engine/onnx/device.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { checkFits, chooseSavings, estimateMemory, type ModelSize } from '../../../engine/train/estimate.ts'
import { previewTraining } from '../../../engine/train/preview.ts'
import { randomExamples } from './bigram-step.ts'

/** SmolLM2-135M with LoRA of rank 8 on all linear layers. */
const smol: ModelSize = {
  vocabSize: 49_152,
  hiddenSize: 576,
  intermediateSize: 1536,
  layers: 30,
  heads: 9,
  keyValueHeads: 3,
  headDim: 64,
  parameters: 134_515_008,
  weightBytes: 269_030_016,
  trainableParameters: 2_442_240,
}
/** TinyLlama-1.1B with LoRA of rank 8 on all linear layers. */
const tinyLlama: ModelSize = {
  vocabSize: 32_000,
  hiddenSize: 2048,
  intermediateSize: 5632,
  layers: 22,
  heads: 32,
  keyValueHeads: 4,
  headDim: 64,
  parameters: 1_100_048_384,
  weightBytes: 2_200_096_768,
  trainableParameters: 6_307_840,
}
const parse = (fields: Record<string, unknown> = {}) =>
  parseTrainConfig({ model: 'm', dataset: 'd', ...fields })

describe('the memory estimate', () => {
  it('counts the weights of a 16-bit base as float32 on WebGPU, which has no other type for them', () => {
    const batch = { rows: 1, length: 256, trained: 128 }
    const [cpu, gpu] = (['cpu', 'webgpu'] as const).map((kind) =>
      estimateMemory(smol, parse({ device: 'auto' }), batch, false, { device: { kind, hasHalf: false } }),
    )
    expect(cpu!.mappedWeights).toBe(smol.weightBytes)
    expect(gpu!.mappedWeights).toBe(4 * smol.parameters)
    expect(gpu!.working).toBeLessThan(cpu!.working)
  })

  it('counts the base twice on a device that evaluates or compares with the start, and once on the CPU, which maps it', () => {
    const batch = { rows: 1, length: 256, trained: 128 }
    const weights = (kind: 'cpu' | 'webgpu' | 'cuda', fields: Record<string, unknown>, evaluates = false) =>
      estimateMemory(smol, parse(fields), batch, false, { device: { kind, hasHalf: false }, evaluates })
        .mappedWeights / smol.weightBytes
    const dpo = { stage: 'dpo' }
    expect([weights('cpu', {}, true), weights('cpu', dpo)]).toEqual([1, 1])
    expect([weights('webgpu', {}), weights('webgpu', {}, true), weights('webgpu', dpo)]).toEqual([2, 4, 4])
    expect([weights('cuda', {}), weights('cuda', {}, true), weights('cuda', { stage: 'kto' })]).toEqual([
      1, 2, 2,
    ])
    expect(weights('cuda', { stage: 'dpo', pref_loss: 'orpo' })).toBe(1)
  })

  it('counts half of what layers keep with fp16, but for residuals, and where the device has no float16 all of it', () => {
    const batch = { rows: 2, length: 512, trained: 512 }
    const estimate = (fp16: boolean, hasHalf: boolean, again = false) =>
      estimateMemory(smol, parse({ fp16 }), batch, again, { device: { kind: 'webgpu', hasHalf } })
    const whole = estimate(false, true)
    expect(estimate(true, false)).toEqual(whole)
    const half = estimate(true, true)
    expect(half.attention).toBe(whole.attention / 2)
    const residuals = 4 * 1024 * 2 * 576 * 30
    expect(half.activations - residuals).toBe((whole.activations - residuals) / 2)
    expect(estimate(true, true, true)).toEqual(estimate(false, true, true))
  })

  it('counts no widened weights where they are multiplied as they are stored, but for the norms of DoRA', () => {
    const batch = { rows: 2, length: 256, trained: 64 }
    const stored: ModelSize = { ...tinyLlama, isBfloat16: true }
    const cuda = { kind: 'cuda', hasHalf: true, multipliesBfloat16: true } as const
    const working = (fields: Record<string, unknown>, model = stored, device: DeviceTraits = cuda) =>
      estimateMemory(model, parse(fields), batch, true, { device }).working
    const widened = working({})
    expect(working({ bf16: true })).toBeLessThan(0.6 * widened)
    expect(working({ pure_bf16: true })).toBe(working({ bf16: true }))
    expect(working({ bf16: true }, tinyLlama)).toBe(widened)
    expect(working({ bf16: true }, stored, { kind: 'cuda', hasHalf: true })).toBe(widened)
    const packed = { ...stored, packedBytes: 7e8 }
    expect(working({ bf16: true }, packed)).toBe(working({}, packed))
    expect(working({ bf16: true, use_dora: true })).toBeGreaterThan(working({ bf16: true }))
  })

  it('adds up, and grows with the batch where it should', () => {
    const small = estimateMemory(smol, parse(), { rows: 1, length: 256, trained: 128 }, false)
    const large = estimateMemory(smol, parse(), { rows: 2, length: 512, trained: 512 }, false)
    const { total, ...parts } = small
    expect(Object.values(parts).reduce((sum, bytes) => sum + bytes)).toBe(total)
    expect(large.activations).toBe(4 * small.activations)
    expect(large.attention).toBe(8 * small.attention)
    expect(large.working).toBeGreaterThan(small.working)
  })

  it.each([
    // rows, length, checkpointing, peak resident bytes measured by bench/memory.ts
    [1, 64, false, 0.78e9],
    [1, 128, false, 0.9e9],
    [2, 256, false, 1.64e9],
    [4, 256, false, 2.51e9],
    [1, 128, true, 0.76e9],
    [2, 256, true, 0.89e9],
    [4, 512, true, 1.4e9],
    [1, 1024, true, 1.05e9],
    [1, 1024, false, 3.78e9],
    // with fp16
    [2, 256, false, 1.33e9, true],
  ])(
    'is within 15 %% of what %d x %d tokens took, checkpointing %s',
    (rows, length, again, measured, fp16 = false) => {
      const batch = { rows, length, trained: rows * (length - 1) }
      const { total } = estimateMemory(smol, parse({ fp16 }), batch, again)
      expect(total / measured).toBeGreaterThan(0.85)
      expect(total / measured).toBeLessThan(1.15)
    },
  )

  it.each([
    // length, packed bytes of the file, measured peak
    [1024, undefined, 3.82e9],
    [512, 0.807e9, 1.79e9],
  ])('is within 15 %% for a model of 1.1 B parameters at 1 x %d', (length, packedBytes, measured) => {
    const size = packedBytes === undefined ? tinyLlama : { ...tinyLlama, packedBytes }
    const { total } = estimateMemory(size, parse(), { rows: 1, length, trained: length - 1 }, true)
    expect(total / measured).toBeGreaterThan(0.85)
    expect(total / measured).toBeLessThan(1.15)
  })

  it('counts no frozen weights in full training', () => {
    const full = { ...smol, trainableParameters: smol.parameters }
    const batch = { rows: 1, length: 64, trained: 32 }
    const estimate = estimateMemory(full, parse({ finetuning_type: 'full' }), batch, false)
    expect(estimate).toMatchObject({ mappedWeights: 0, trainable: 5 * 4 * smol.parameters })
  })

  it('counts what the optimizer keeps', () => {
    const full = { ...smol, trainableParameters: smol.parameters }
    const batch = { rows: 1, length: 64, trained: 32 }
    const copies = (fields: Record<string, unknown>) =>
      estimateMemory(full, parse({ finetuning_type: 'full', ...fields }), batch, false).trainable /
      (4 * smol.parameters)
    expect(copies({ optim: 'lion_32bit' })).toBe(4)
    expect(copies({ optim: 'adafactor' })).toBe(3)
    expect(copies({ use_badam: true })).toBeCloseTo(3 + (2 * 49_152 * 576) / smol.parameters, 6)
    const low = copies({ use_galore: true, galore_rank: 8 })
    expect(low).toBeGreaterThan(3)
    expect(low).toBeLessThan(copies({ use_galore: true, galore_rank: 128 }))
  })

  it('computes layers again where keeping them would not fit, unless the configuration decides', () => {
    const batch = { rows: 2, length: 512, trained: 512 }
    const keeping = estimateMemory(smol, parse(), batch, false).total
    const choose = (fields: Record<string, unknown>, available: number) =>
      chooseSavings(smol, parse(fields), batch, { availableBytes: available })
    expect(choose({}, keeping)).toMatchObject({ checkpointing: false, memory: { total: keeping } })
    const again = choose({}, keeping - 1)
    expect(again.checkpointing).toBe(true)
    expect(again.memory.total).toBeLessThan(keeping / 2)
    expect(choose({ gradient_checkpointing: true }, keeping).checkpointing).toBe(true)
    expect(choose({ disable_gradient_checkpointing: true }, 1).checkpointing).toBe(false)
  })

  it('refuses what does not fit, with both numbers', () => {
    const estimate = estimateMemory(smol, parse(), { rows: 8, length: 2048, trained: 8192 }, false)
    expect(() => checkFits(estimate, estimate.total)).not.toThrow()
    expect(() => checkFits(estimate, 4e9)).toThrow(
      expect.objectContaining({
        kind: 'too_large',
        message: expect.stringMatching(new RegExp(`${estimate.total} bytes.*4000000000 bytes.*batch_size`)),
      }),
    )
  })
})

describe('a preview', () => {
  const facts = { model: smol, examples: randomExamples(20), evalExamples: [], truncated: 0 }
  const codes = (fields: Record<string, unknown>, more = {}) =>
    previewTraining(parse(fields), { ...facts, ...more }).warnings.map(({ code }) => code)

  it('says how many steps and tokens there will be', () => {
    const preview = previewTraining(parse({ num_train_epochs: 300 }), facts)
    expect(preview).toMatchObject({ stepsPerEpoch: 3, totalSteps: 900, epochs: 300, examples: 20 })
    const tokens = facts.examples.reduce((sum, { inputIds }) => sum + inputIds.length, 0)
    expect(preview.tokensPerEpoch).toBe(tokens)
    expect(preview.trainedTokensPerEpoch).toBe(tokens - 2 * 20)
    expect(preview.command).toBe('anneal train model_name_or_path=m dataset=d num_train_epochs=300')
  })

  it('advises at least 300 epochs for a small set', () => {
    const { warnings } = previewTraining(parse({ logging_steps: 1 }), facts)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]!.message).toMatch(/^20 samples, small set: use at least 300 epochs/)
    expect(codes({ num_train_epochs: 300 })).toEqual([])
    expect(codes({ max_steps: 100, logging_steps: 1 })).toEqual(['few_epochs'])
    expect(codes({ stage: 'kto', max_steps: 100, logging_steps: 1 })).toEqual([])
  })

  it('warns of what is probably not meant', () => {
    const enough = { num_train_epochs: 300 }
    expect(codes({ ...enough, learning_rate: 0.1 })).toEqual(['high_learning_rate'])
    expect(codes({ ...enough, warmup_steps: 2000 })).toEqual(['warmup_too_long'])
    expect(codes({ ...enough, logging_steps: 1000 })).toEqual(['few_log_entries'])
    expect(codes({ ...enough, bf16: true })).toEqual(['computes_in_float32'])
    const cuda = { device: { kind: 'cuda', hasHalf: true, multipliesBfloat16: true } }
    expect(codes({ ...enough, bf16: true }, cuda)).toEqual(['bf16_without_effect'])
    const stored = { ...cuda, model: { ...smol, isBfloat16: true } }
    expect(codes({ ...enough, bf16: true }, stored)).toEqual([])
    expect(codes({ ...enough, pure_bf16: true }, stored)).toEqual(['adapter_in_float32'])
    expect(codes({ ...enough, fp16: true })).toEqual([])
    const without = { device: { kind: 'webgpu', hasHalf: false } }
    expect(codes({ ...enough, fp16: true }, without)).toEqual(['fp16_unavailable'])
    expect(codes({ ...enough, fp16: true, gradient_checkpointing: true })).toEqual(['fp16_without_effect'])
    expect(codes(enough, { truncated: 3 })).toEqual(['truncated_examples'])
    expect(codes(enough, { model: { ...smol, maxPositions: 2 } })).toEqual(['longer_than_context'])
    expect(codes(enough, { model: { ...smol, maxPositions: 8192 } })).toEqual([])
    expect(codes(enough, { ignored: ['ddp_timeout'] })).toEqual(['ignored_fields'])
  })
})
