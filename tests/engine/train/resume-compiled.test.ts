import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { initializeLora } from '../../../engine/adapter/initialize.ts'
import { openModel } from '../../../engine/models/index.ts'
import { CompiledStep } from '../../../engine/train/compiled-step.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { train } from '../../../engine/train/loop.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { randomExamples } from './bigram-step.ts'

const config = parseTrainConfig({
  model: 'llama',
  dataset: 'random',
  learning_rate: 5e-3,
  max_steps: 6,
  save_steps: 2,
  per_device_train_batch_size: 2,
  gradient_accumulation_steps: 2,
  lora_rank: 4,
  lora_dropout: 0.1,
})

/** Trains a tiny llama in a session of its own; returns the losses. */
async function run(outputDir: string, resumeFrom?: string): Promise<number[]> {
  const model = openModel(`${SHARED}golden/llama/model`)
  const method = { kind: 'lora', rank: 4, scale: 2, dropout: 0.1, targets: 'all' } as const
  const step = await CompiledStep.create(model, { method, maxLength: 16, initialize: initializeLora(42) })
  const losses: number[] = []
  try {
    const shared = { config, step, examples: randomExamples(10), padId: 0, allParameters: 1 }
    for await (const event of train({ ...shared, outputDir, resumeFrom, writeModel: () => {} })) {
      if (event.type === 'step') losses.push(event.loss)
    }
  } finally {
    await step.release()
    model.weights.close()
  }
  return losses
}

describe.skipIf(sharedMissing())(`a compiled training step ${NEEDS_SHARED}`, () => {
  it('gives the very same losses after a resume as without one, dropout included', async () => {
    const outputDir = mkdtempSync(join(tmpdir(), 'anneal-resume-'))
    try {
      const whole = await run(join(outputDir, 'whole'))
      expect(whole).toHaveLength(6)
      for (const k of [2, 4]) {
        const rest = await run(join(outputDir, `from-${k}`), join(outputDir, 'whole', `checkpoint-${k}`))
        expect(rest).toEqual(whole.slice(k))
      }
    } finally {
      rmSync(outputDir, { recursive: true, force: true })
    }
  })
})
