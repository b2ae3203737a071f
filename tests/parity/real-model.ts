import { join } from 'node:path'
import { readAdapter } from '../../engine/adapter/peft.ts'
import { Decoder } from '../../engine/generate/decoder.ts'
import { openModel } from '../../engine/models/index.ts'
import type { Device } from '../../engine/onnx/device.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { type FamilyReport, greedyTokens, LOGITS_BOUND } from './checks.ts'
import { bounded, type Check, exact, type Reference } from './reference.ts'
import { trainCurve } from './train-curve.ts'
import { adapterTensor, LOSS_BOUND } from './training-checks.ts'

/** Compares the real model: loss, top logits, greedy text and a LoRA curve on real rows. */
export async function checkRealModel(
  reference: Reference,
  base: string,
  device: Device,
): Promise<FamilyReport> {
  const { json } = reference
  const checks: Check[] = []
  const decoder = await Decoder.load(base, { device })
  try {
    const batch = reference.batch(0)
    const tokens = Int32Array.from(batch.inputIds.subarray(0, batch.rowLengths[0]), Number)
    const logits = await decoder.forward(tokens, decoder.createCache())
    const top = json.top20_after_batch_0_row_0 ?? []
    const span = logits.reduce((a, b) => Math.max(a, b)) - logits.reduce((a, b) => Math.min(a, b))
    const worst = Math.max(...top.map(([id, value]) => Math.abs(logits[id]! - value)))
    checks.push(bounded('top-20 logits', worst / span, LOGITS_BOUND))
    checks.push(await realGreedyCheck(decoder, reference, base))
  } finally {
    await decoder.release()
  }
  const adapter = readAdapter(join(reference.folder, 'adapter-start'))
  const method = {
    rank: adapter.config.r,
    scale: [...adapter.modules.values()][0]!.scale,
    dropout: 0,
    targets: [...adapter.modules.keys()],
  }
  const model = openModel(base)
  const step = await CompiledStep.create(model, {
    method: { kind: 'lora', ...method },
    maxLength: 512,
    session: { device },
    initialize: (name) => adapterTensor(adapter, name),
  })
  try {
    const curve = json.curve ?? []
    const batches = curve.map((_, index) => reference.batch(index))
    const actual = await trainCurve(step, batches, Math.max(...curve.map(({ lr }) => lr)))
    const errors = curve.map(({ loss }, index) => Math.abs(actual[index]!.loss - loss) / loss)
    checks.push(bounded('base loss', Math.abs(actual[0]!.loss - json.base_loss) / json.base_loss, LOSS_BOUND))
    checks.push(bounded(`losses of ${curve.length} steps`, Math.max(...errors), LOSS_BOUND))
  } finally {
    await step.release()
  }
  return { checks, unsupported: [], notes: [] }
}

/** The stored tokens are prompt and answer in one. */
async function realGreedyCheck(decoder: Decoder, reference: Reference, base: string): Promise<Check> {
  const { tokens, prompt: text } = reference.json.greedy!
  const prompt = loadTokenizer(base).encode(text)
  const expected = tokens.slice(prompt.length)
  const actual = await greedyTokens(decoder, prompt, expected.length)
  return exact(`${expected.length} greedy tokens`, actual.join() === expected.join())
}
