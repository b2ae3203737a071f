import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { OpenModel } from '../../../engine/models/index.ts'
import type { SessionOptions } from '../../../engine/onnx/session.ts'
import { createRandom } from '../../../engine/random.ts'
import { CompiledStep, type CompiledStepOptions } from '../../../engine/train/compiled-step.ts'
import type { TokenBatch } from '../../../engine/train/step.ts'

/** Two rows of which every second token is trained. */
function batchOf(vocabulary: number): TokenBatch {
  const [rows, length] = [2, 16]
  const trained = Array.from({ length: (rows * length) / 2 }, (_, i) => BigInt(2 * i))
  return {
    rows,
    length,
    inputIds: BigInt64Array.from({ length: rows * length }, (_, i) => BigInt((5 + i * 37) % vocabulary)),
    trainedPositions: BigInt64Array.from(trained),
    labels: BigInt64Array.from(trained, (place) => 7n + place),
    tokens: rows * length,
  }
}

function gaussian(seed: number): CompiledStepOptions['initialize'] {
  const random = createRandom(seed)
  return (_, shape) =>
    Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, () => 0.02 * random.nextGaussian())
}

/** Loss and gradients of one LoRA step, or of the step that `more` makes of it. */
export async function runStep(
  session: SessionOptions,
  model: OpenModel,
  more: Partial<CompiledStepOptions> = {},
) {
  const step = await CompiledStep.create(model, {
    method: { kind: 'lora', rank: 4, scale: 2, dropout: 0, targets: 'all' },
    maxLength: 16,
    checkpointing: true,
    initialize: gaussian(3),
    session,
    ...more,
  })
  try {
    return await step.run(batchOf(model.config.vocabSize), 1 / 16)
  } finally {
    await step.release()
  }
}

/** Nodes of a profile, by the execution provider that ran them. */
export function nodesByProvider(folder: string): Record<string, string[]> {
  const nodes: Record<string, string[]> = {}
  for (const file of readdirSync(folder)) {
    for (const { cat, name, args } of JSON.parse(readFileSync(join(folder, file), 'utf8'))) {
      if (cat !== 'Node' || !args?.provider) continue
      nodes[args.provider] ??= []
      nodes[args.provider]!.push(name)
    }
  }
  return nodes
}
