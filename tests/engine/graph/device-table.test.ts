import { describe, expect, it } from 'vitest'
import { hasKernel, kernelType } from '../../../engine/graph/device-table.ts'
import { lower, unlowered } from '../../../engine/graph/lower.ts'
import type { Value } from '../../../engine/graph/values.ts'
import { convertsHalf } from '../../../engine/onnx/self-test.ts'
import { Session, type SessionOptions } from '../../../engine/onnx/session.ts'
import { float32ToBfloat16 } from '../../../engine/weights/dtypes.ts'
import { asOnCuda, isBfloat16Product } from '../../bfloat16-products.ts'
import { CUDA, cudaForTests } from '../../cuda.ts'
import { WEBGPU, webgpuMissing } from '../../webgpu.ts'
import { halfCase, widened } from './half-case.ts'
import { CaseBuilder, type OpCase, opCases } from './op-cases.ts'

/** Largest deviation from the CPU's numbers, over the largest of them. */
const BOUND = 1e-5
/** At accuracy level 4 the CPU rounds activations to 8 bits, and other devices do not. */
const ROUNDED_BOUND = 1e-2

/** In float16, whose rounding is 5e-4 of a number: sums add up in it, and where they cancel, more is lost. */
const HALF_BOUND = 2e-3
const CANCELLING_BOUND = 3e-2

const missing = await webgpuMissing()
const hasHalf = missing === '' && (await convertsHalf(WEBGPU))
const halfMissing = missing || (hasHalf ? '' : " (skipped: the adapter has no 'shader-f16', as lavapipe has)")

async function results(
  { graph, feeds }: OpCase,
  options: SessionOptions,
): Promise<ArrayLike<number | bigint>[]> {
  const session = await Session.create(graph, options)
  try {
    const fetched = await session.run(feeds)
    return graph.outputs.map(({ name }) => widened(fetched[name]!))
  } finally {
    await session.release()
  }
}

function deviation(actual: ArrayLike<number | bigint>, expected: ArrayLike<number | bigint>): number {
  let largest = 1e-30
  let difference = actual.length === expected.length ? 0 : Number.POSITIVE_INFINITY
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(Number(expected[i])))
    const distance = Math.abs(Number(actual[i]) - Number(expected[i]))
    difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(difference, distance)
  }
  return difference / largest
}

const bound = ({ title }: OpCase) => (title.includes('level 4') ? ROUNDED_BOUND : BOUND)
const all = [...opCases].flatMap(([op, cases]) => cases.map((each) => [each.title, op, each] as const))

describe('operations on the CPU', () => {
  it.each(all)('%s runs', async (_title, _op, each) => {
    const numbers = await results(each, {})
    expect(numbers.every((data) => Array.from(data).every((value) => Number.isFinite(Number(value))))).toBe(
      true,
    )
  })
})

/** What a device computes, computed on the CPU. */
async function loweredResults({ graph, feeds }: OpCase): Promise<ArrayLike<number | bigint>[]> {
  const parts = lower(graph, 'cuda')
  const host = parts.host && (await Session.create(parts.host))
  const device = await Session.create(parts.device)
  try {
    const fetched = await device.run({ ...feeds, ...(await host?.run(feeds)) })
    return graph.outputs.map(({ name }) => fetched[name]!.data)
  } finally {
    await device.release()
    await host?.release()
  }
}

describe('operations, lowered for CUDA', () => {
  const changed = all.filter(([, , { graph }]) => graph.nodes.some((node) => !hasKernel('cuda', node)))
  it.each(changed)('%s: what stands for it is equal to it', async (_title, _op, each) => {
    const [expected, actual] = [await results(each, {}), await loweredResults(each)]
    for (const [index, data] of expected.entries()) {
      expect(deviation(actual[index]!, data)).toBeLessThan(BOUND)
    }
  })
})

const needsHalf = ({ graph }: OpCase) => graph.nodes.some((node) => kernelType(node) === 'float32 to float16')

describe.skipIf(missing !== '')(`operations on WebGPU${missing}`, () => {
  // Sessions are strict: one whose graph the device has not all kernels for is refused, so a pass is a kernel's.
  const possible = all.filter(([, , each]) => hasHalf || !needsHalf(each))
  it.each(possible)('%s, lowered, is what the CPU computes', async (_title, _op, each) => {
    const [expected, actual] = [await results(each, {}), await results(each, { device: WEBGPU })]
    for (const [index, data] of expected.entries()) {
      expect(deviation(actual[index]!, data)).toBeLessThan(bound(each))
    }
  })

  it.skipIf(hasHalf)(
    'float16 is refused by an adapter without it, so the self-test has to tell',
    async () => {
      const cases = all.filter(([, , each]) => needsHalf(each))
      expect(cases).toHaveLength(1)
      for (const [, , each] of cases) {
        await expect(results(each, { device: WEBGPU })).rejects.toThrow(/requires f16/)
      }
    },
  )

  const lacking = all.filter(([, op, { graph }]) =>
    graph.nodes.some((node) => node.op === op && !hasKernel('webgpu', node)),
  )
  // the table promises no arithmetic in float16, since only some adapters have the type
  const refused = lacking.filter(([title]) => !hasHalf || title !== 'Gather of float16')
  it.each(refused)('%s is refused without lowering, as the table says', async (_title, _op, each) => {
    const options = { device: WEBGPU, lowering: unlowered, foldWeights: false }
    await expect(results(each, options)).rejects.toThrow(/fallback to CPU|requires f16/)
  })
})

const halves = all.flatMap(([title, op, each]) => {
  const pair = halfCase(each)
  return pair ? [[title, op, pair] as const] : []
})
const halfBound = (title: string) =>
  /^ReduceSum of (everything|rank 4)/.test(title) ? CANCELLING_BOUND : HALF_BOUND
/** What WebGPU has no kernel for in float16, either; its Split takes few parts, and a norm's second output is float32. */
const WITHOUT_HALF =
  /^(Sign|SoftmaxCross|QuantizeLinear|MatMulInteger|FusedMatMul)|^Split of 40|of int64|labels|^Simplified.*(matrix|rank 4)/
/** -1e30 is beyond float16. */
const BEYOND_HALF = /masked places/

describe.skipIf(halfMissing !== '')(`operations in float16 on WebGPU${halfMissing}`, () => {
  const possible = halves.filter(([title]) => !WITHOUT_HALF.test(title) && !BEYOND_HALF.test(title))
  it.each(possible)('%s is what the CPU computes in float32', async (title, _op, { exact, half }) => {
    const expected = await results(exact, {})
    const actual = await results(half, { device: WEBGPU, lowering: unlowered })
    for (const [index, data] of expected.entries()) {
      expect(deviation(actual[index]!, data)).toBeLessThan(halfBound(title))
    }
  })
})

/** Products of a weight that is stored as bfloat16, in every form that graphs have. */
const storedProducts = (() => {
  const forms: [string, (c: CaseBuilder, weight: (shape: number[]) => Value) => Value][] = [
    ['Gemm x·Wᵀ + c', ({ g, float }, w) => g.Gemm(float([3, 8]), w([16, 8]), { transB: 1 }, float([3, 16]))],
    ['Gemm y·W', ({ g, float }, w) => g.Gemm(float([3, 16]), w([16, 8]))],
    ['Gemm Wᵀ·yᵀ', ({ g, float }, w) => g.Gemm(w([16, 8]), float([3, 16]), { transA: 1, transB: 1 })],
    ['MatMul x·W', ({ g, float }, w) => g.MatMul(float([2, 3, 16]), w([16, 8]))],
    [
      'FusedMatMul 0.5·x·Wᵀ',
      ({ g, float }, w) => g.FusedMatMul(float([3, 8]), w([16, 8]), { transB: 1, alpha: 0.5 }),
    ],
    [
      'Gemm x·Wᵀ of joined weights',
      ({ g, float }, w) => g.Gemm(float([3, 8]), g.Concat([w([16, 8]), w([4, 8])], 0), { transB: 1 }),
    ],
  ]
  return forms.map(([title, build]) => {
    const c = new CaseBuilder()
    const weight = (shape: number[]) => {
      const numbers = Float32Array.from({ length: shape[0]! * shape[1]! }, (_, i) =>
        Math.sin(1.3 * i + shape[0]!),
      )
      return c.g.Cast(c.g.constant('bfloat16', shape, float32ToBfloat16(numbers)), 'float32')
    }
    const output = build(c, weight)
    return [title, { title, graph: c.g.finish([output]), feeds: c.feeds }] as const
  })
})()
/** Two roundings of 2^-9. */
const BFLOAT16_BOUND = 8e-3

describe('products of weights as they are stored', () => {
  it.each(storedProducts)('%s is float32, but for rounding', async (_title, each) => {
    const [expected, actual] = [await results(each, {}), await results(each, { lowering: asOnCuda })]
    const difference = deviation(actual[0]!, expected[0]!)
    expect(difference).toBeLessThan(BFLOAT16_BOUND)
    expect(difference).toBeGreaterThan(1e-5)
  })
})

/** Their kernels call cuDNN, which need not be there. */
const NEEDS_CUDNN = ['ReduceMax of the last axis']
/** The runtime would take it, but not where it is sizes that are joined, as in all of our graphs. */
const LEFT_TO_THE_CPU = ['Concat of int64']
const cuda = await cudaForTests()

describe.skipIf(cuda.missing !== '')(`operations on CUDA${cuda.missing}`, () => {
  const possible = all.filter(([title]) => cuda.computes || !NEEDS_CUDNN.includes(title))
  it.each(possible)('%s, lowered, runs there', async (_title, _op, each) => {
    const [expected, actual] = [await results(each, {}), await results(each, { device: CUDA })]
    for (const [index, data] of expected.entries()) {
      expect(actual[index]!.length).toBe(data.length)
      if (cuda.computes) expect(deviation(actual[index]!, data)).toBeLessThan(bound(each))
    }
  })

  const asTheyAre = possible.filter(([title]) => !LEFT_TO_THE_CPU.includes(title))
  it.each(asTheyAre)(
    '%s is taken without lowering, or refused, as the table says',
    async (_title, _op, each) => {
      const run = results(each, { device: CUDA, lowering: unlowered, foldWeights: false })
      if (each.graph.nodes.every((node) => hasKernel('cuda', node))) await run
      else await expect(run).rejects.toThrow(/fallback to CPU|Unsupported quantization type/)
    },
  )

  it.each(storedProducts)('%s runs there with the weight as it is stored', async (_title, each) => {
    const { nodes } = lower(each.graph, 'cuda', { bfloat16: true }).device
    expect(nodes.filter(isBfloat16Product)).toHaveLength(1)
    const [actual] = await results(each, { device: CUDA, bfloat16: true })
    const [expected] = await results(each, { lowering: asOnCuda })
    expect(actual!.length).toBe(expected!.length)
    if (cuda.computes) expect(deviation(actual!, expected!)).toBeLessThan(BFLOAT16_BOUND)
  })
})
