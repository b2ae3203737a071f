import { describe, expect, it } from 'vitest'
import { hasKernel, kernelType } from '../../../engine/graph/device-table.ts'
import { lower } from '../../../engine/graph/lower.ts'
import { convertsHalf } from '../../../engine/onnx/self-test.ts'
import { Session, type SessionOptions } from '../../../engine/onnx/session.ts'
import { CUDA, cudaForTests } from '../../cuda.ts'
import { WEBGPU, webgpuMissing } from '../../webgpu.ts'
import { halfCase, widened } from './half-case.ts'
import { type OpCase, opCases } from './op-cases.ts'

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
    const options = { device: WEBGPU, lowered: false, foldWeights: false }
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
    const actual = await results(half, { device: WEBGPU, lowered: false })
    for (const [index, data] of expected.entries()) {
      expect(deviation(actual[index]!, data)).toBeLessThan(halfBound(title))
    }
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
      const run = results(each, { device: CUDA, lowered: false, foldWeights: false })
      if (each.graph.nodes.every((node) => hasKernel('cuda', node))) await run
      else await expect(run).rejects.toThrow(/fallback to CPU|Unsupported quantization type/)
    },
  )
})
