import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { readAdapter } from '../../engine/adapter/peft.ts'
import { exportSafetensors } from '../../engine/export/safetensors.ts'
import { openModel } from '../../engine/models/index.ts'
import type { Device } from '../../engine/onnx/device.ts'
import type { SessionOptions } from '../../engine/onnx/session.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { loraMethod } from '../../engine/train/lora-method.ts'
import { WeightFolder } from '../../engine/weights/safetensors.ts'
import { asOnCuda } from '../bfloat16-products.ts'
import type { FamilyReport } from './checks.ts'
import { bounded, type Check, type Reference, relativeToLargest } from './reference.ts'
import { trainCurve } from './train-curve.ts'
import { adapterTensor } from './training-checks.ts'

/** How far a run is from the float32 run over the same weights. */
interface Distance {
  /** Of the gradients' difference as one vector, over their length. */
  readonly gradients: number
  /** The largest error of a gradient over its largest number, the worst of all. */
  readonly worst: number
  /** The curve's losses' differences over the loss, as the root of the mean of their squares. */
  readonly losses: number
}

interface Run {
  readonly gradients: ReadonlyMap<string, Float32Array>
  readonly losses: readonly number[]
}

/** Which of two roundings is nearer to float32 after many steps is partly chance, most of all where they choose experts. */
const CHANCE = 1.25

/** Bounds of a LoRA run with `bf16: true`. A rounding to bfloat16 is up to 2^-9 of a number, 2e-3. */
const BOUNDS: Distance = { gradients: 5e-2, worst: 0.15, losses: 5e-3 }

/**
 * A LoRA run with `bf16: true` beside one in float32 over the same weights, both ours; and, where there is a Python, beside
 * PyTorch's and PEFT's run in bfloat16, from which float32 must not be nearer. On the CPU it is what CUDA would compute
 * (bfloat16-products.ts).
 */
export async function checkBfloat16(
  reference: Reference,
  base: string,
  python: string | null,
  device: Device,
): Promise<FamilyReport> {
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-bfloat16-'))
  try {
    const rounded = join(scratch, 'model')
    await exportSafetensors({ modelFolder: base, outputFolder: rounded, dtype: 'bfloat16' })
    const exact = await run(reference, rounded, { device })
    const ours = await run(
      reference,
      rounded,
      device.kind === 'cpu' ? { lowering: asOnCuda } : { device, bfloat16: true },
    )
    const distance = distanceOf(ours, exact)
    const checks = boundsOf('bf16', distance, BOUNDS)
    if (!python)
      return { checks, unsupported: [], notes: ['no Python with PEFT to compare with (set JUDGE_PYTHON)'] }
    const theirs = distanceOf(judge(reference, rounded, python, join(scratch, 'judged.safetensors')), exact)
    const beside = boundsOf("bf16 beside PEFT's", distance, { ...theirs, losses: CHANCE * theirs.losses })
    return { checks: [...checks, ...beside], unsupported: [], notes: [] }
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

function boundsOf(name: string, distance: Distance, bounds: Distance): Check[] {
  return [
    bounded(`${name}: norm of all gradients' errors`, distance.gradients, bounds.gradients),
    bounded(`${name}: worst of all gradients`, distance.worst, bounds.worst),
    bounded(`${name}: losses`, distance.losses, bounds.losses),
  ]
}

function startOf(reference: Reference): string {
  return join(
    reference.folder,
    reference.has('adapter-plain-start') ? 'adapter-plain-start' : 'adapter-start',
  )
}

function curveOf({ json }: Reference) {
  return json.plain_curve ?? json.curve ?? []
}

async function run(
  reference: Reference,
  base: string,
  session: Pick<SessionOptions, 'device' | 'bfloat16' | 'lowering'>,
): Promise<Run> {
  const model = openModel(base)
  const adapter = readAdapter(startOf(reference))
  const step = await CompiledStep.create(model, {
    method: loraMethod(adapter.config),
    maxLength: Math.min(model.config.maxPositions, 512),
    session,
    initialize: (name) => adapterTensor(adapter, name),
  })
  try {
    const batch = reference.batch(0)
    const { gradients } = await step.run(batch, 1 / batch.labels.length)
    const curve = curveOf(reference)
    const batches = curve.map((_, index) => reference.batch(index))
    const trained = await trainCurve(step, batches, Math.max(...curve.map(({ lr }) => lr)))
    return {
      gradients: new Map(step.parameters.map(({ name }, index) => [name, gradients[index]!])),
      losses: trained.map(({ loss }) => loss),
    }
  } finally {
    await step.release()
  }
}

function judge(reference: Reference, base: string, python: string, output: string): Run {
  const curve = curveOf(reference)
  const peak = Math.max(...curve.map(({ lr }) => lr))
  const script = join(import.meta.dirname, 'judge-bfloat16.py')
  const args = [base, startOf(reference), reference.folder, String(peak), String(curve.length), output]
  execFileSync(python, [script, ...args], { stdio: ['ignore', 'ignore', 'ignore'] })
  const results = WeightFolder.open(dirname(output), { fileName: 'judged.safetensors' })
  const names = [...results.entries.keys()].filter((name) => name.startsWith('grad.'))
  return {
    gradients: new Map(
      names.map((name) => [
        name.slice('grad.'.length).replace('.default.weight', '.weight'),
        results.readFloat32(name),
      ]),
    ),
    losses: [...results.readFloat32('losses')],
  }
}

function distanceOf(run: Run, exact: Run): Distance {
  let [difference, length, worst] = [0, 0, 0]
  for (const [name, expected] of exact.gradients) {
    const actual = run.gradients.get(name)
    if (!actual) throw new Error(`no gradient of ${name}`)
    for (const [i, number] of expected.entries()) {
      difference += (actual[i]! - number) ** 2
      length += number ** 2
    }
    worst = Math.max(worst, relativeToLargest(actual, expected))
  }
  const losses = exact.losses.map((loss, index) => ((run.losses[index]! - loss) / loss) ** 2)
  const meanSquare = losses.reduce((sum, square) => sum + square, 0) / losses.length
  return { gradients: Math.sqrt(difference / length), worst, losses: Math.sqrt(meanSquare) }
}
