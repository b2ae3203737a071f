import { join } from 'node:path'
import { type LoraAdapter, readAdapter } from '../../engine/adapter/peft.ts'
import { openModel } from '../../engine/models/index.ts'
import type { Device } from '../../engine/onnx/device.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { loraMethod, startFromAdapter } from '../../engine/train/lora-method.ts'
import type { TrainingMethod } from '../../engine/train/training-method.ts'
import { bounded, type Check, type CurvePoint, type Reference, relativeToLargest } from './reference.ts'
import { trainCurve } from './train-curve.ts'

/** Of gradients over their largest, and of losses over themselves: float32's on every device, as LOGITS_BOUND is. */
const GRADIENT_BOUND = 1e-3
export const LOSS_BOUND = 1e-3
/**
 * With fp16 what the layers keep is rounded to 11 bits. Which way a number goes depends on the order of the sums before
 * it, so a single gradient may be off by some more of 2^-11 on one device than on another; all together they agree.
 */
const HALF_GRADIENT_BOUND = 1e-2
/** Of their difference as one vector, over the gradients as one vector. */
const HALF_GRADIENTS_NORM_BOUND = 3e-3
/** With experts the rounding sends a token to another one now and then. */
const HALF_EXPERTS_LOSS_BOUND = 5e-3

/** Where a step is trained, and how. */
export interface TrainingPlace {
  readonly device: Device
  readonly fp16: boolean
}

/** Gradients of the start adapter and the loss curve from it. */
export async function checkTraining(
  reference: Reference,
  base: string,
  kind: string,
  place: TrainingPlace,
): Promise<Check[]> {
  const adapter = readAdapter(join(reference.folder, `adapter-${kind}-start`))
  const method = loraMethod(adapter.config)
  const { worst, norm } = await gradientErrors(reference, base, kind, method, place)
  const curve = reference.json[`${kind}_curve` as 'plain_curve'] ?? []
  return [
    bounded(`${kind}: worst of all gradients`, worst, place.fp16 ? HALF_GRADIENT_BOUND : GRADIENT_BOUND),
    bounded(
      `${kind}: norm of all gradients' errors`,
      norm,
      place.fp16 ? HALF_GRADIENTS_NORM_BOUND : GRADIENT_BOUND,
    ),
    ...(await checkCurve(kind, reference, base, method, curve, place)),
  ]
}

/** The largest error of each gradient over its largest number, the worst of all; and that of all as one vector. */
async function gradientErrors(
  reference: Reference,
  base: string,
  kind: string,
  method: TrainingMethod,
  place: TrainingPlace,
): Promise<{ worst: number; norm: number }> {
  const batch = reference.batch(0)
  const step = await openStep(reference, base, method, kind, place)
  try {
    const { gradients } = await step.run(batch, 1 / batch.labels.length)
    const expected = step.parameters.map(({ name }) =>
      reference.float(`${kind}.grad.${name.replace(/(\.weight)?$/, '.default.weight')}`),
    )
    let [difference, length] = [0, 0]
    for (const [index, numbers] of expected.entries()) {
      for (const [i, number] of numbers.entries()) {
        difference += (gradients[index]![i]! - number) ** 2
        length += number ** 2
      }
    }
    const worst = Math.max(...expected.map((numbers, index) => relativeToLargest(gradients[index]!, numbers)))
    return { worst, norm: Math.sqrt(difference / length) }
  } finally {
    await step.release()
  }
}

/** Learning rates and losses of a curve that the reference ran through. */
export async function checkCurve(
  kind: string,
  reference: Reference,
  base: string,
  method: TrainingMethod,
  curve: readonly CurvePoint[],
  place: TrainingPlace,
): Promise<Check[]> {
  const step = await openStep(reference, base, method, kind, place)
  const hasExperts = openModel(base).config.experts !== null
  try {
    const peak = Math.max(...curve.map(({ lr }) => lr))
    const batches = curve.map((_, index) => reference.batch(index))
    const actual = await trainCurve(step, batches, peak)
    const worst = (field: 'loss' | 'grad_norm' | 'lr') =>
      Math.max(
        ...curve.map((point, index) => {
          const distance = Math.abs(actual[index]![field] - point[field])
          return point[field] === 0 ? distance : distance / point[field]
        }),
      )
    return [
      bounded(`${kind}: learning rates of ${curve.length} steps`, worst('lr'), 1e-6),
      bounded(
        `${kind}: losses of ${curve.length} steps`,
        worst('loss'),
        place.fp16 && hasExperts ? HALF_EXPERTS_LOSS_BOUND : LOSS_BOUND,
      ),
    ]
  } finally {
    await step.release()
  }
}

async function openStep(
  reference: Reference,
  base: string,
  method: TrainingMethod,
  kind: string,
  { device, fp16 }: TrainingPlace,
): Promise<CompiledStep> {
  const model = openModel(base)
  const start = method.kind === 'full' ? null : readAdapter(join(reference.folder, `adapter-${kind}-start`))
  return CompiledStep.create(model, {
    method,
    maxLength: model.config.maxPositions,
    halfActivations: fp16,
    session: { device },
    initialize: (name) => (start ? adapterTensor(start, name) : model.weights.readFloat32(name)),
  })
}

/** The tensor of an adapter under PEFT's name. */
export function adapterTensor(adapter: LoraAdapter, name: string): Float32Array {
  const data = startFromAdapter(adapter)(name)
  if (!data) throw new Error(`the adapter has no ${name}`)
  return data
}
