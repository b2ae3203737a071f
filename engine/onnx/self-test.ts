import { messageOf } from '../errors.ts'
import { GraphBuilder } from '../graph/builder.ts'
import { multipliesBfloat16 } from '../graph/device-table.ts'
import type { Graph } from '../graph/graph.ts'
import { floatTensor, type Tensor } from '../tensor.ts'
import { float16Bits, float16Value, float32ToBfloat16 } from '../weights/dtypes.ts'
import { CPU, type Device, type DeviceKind, formatDevice } from './device.ts'
import { Session } from './session.ts'

/** What became of a device's self-test. */
export interface SelfTestResult {
  /** The device computed what the CPU computes. */
  readonly ok: boolean
  /** One sentence: that it agrees and how fast it is, or what went wrong. */
  readonly reason: string
  /** The fastest of a few runs of the test's graph, in milliseconds; undefined where it failed. */
  readonly milliseconds: number | undefined
  /**
   * The same for the CPU of this machine. A device that takes longer (WebGPU in software, say) works, but `auto` gains
   * nothing by it.
   */
  readonly cpuMilliseconds: number | undefined
  /** Whether it converts to float16 and back as the CPU does; not every WebGPU adapter has the type. */
  readonly hasHalf?: boolean
  /** Whether it multiplies weights that are stored as bfloat16; older GPUs don't. */
  readonly multipliesBfloat16?: boolean
}

const ROWS = 256
const WIDTH = 1024
/**
 * Largest difference allowed, over the largest result. CUDA's float32 products take 10 bits of what goes in (TF32, which
 * the runtime asks cuBLAS for on GPUs since Ampere): up to 2.6e-2 for this graph with its products' inputs cut so by hand.
 */
const BOUNDS: Readonly<Record<DeviceKind, number>> = { cpu: 1e-3, webgpu: 1e-3, cuda: 0.1 }
const RUNS = 3
/** Among them one that float16 rounds, its largest, and one below its normal numbers. */
const HALF_PROBE = Float32Array.of(1, -2.5, 0.1, 65504, 1e-6)
/** 1² + … + 8² = 204 has eight bits, as bfloat16 has. */
const PRODUCT_WIDTH = 8

/**
 * Runs a small graph (norm, products, softmax) on a device and compares it with the CPU's result. Never throws. It blocks
 * its thread and may take seconds, and a broken driver may end the process: call it in a child process.
 */
export async function selfTest(device: Device): Promise<SelfTestResult> {
  const graph = testGraph()
  const name = formatDevice(device)
  try {
    const expected = await measure(graph, CPU)
    if (device.kind === 'cpu') {
      const { milliseconds } = expected
      return { ok: true, reason: 'the CPU', milliseconds, cpuMilliseconds: milliseconds, hasHalf: true }
    }
    const actual = await measure(graph, device)
    const difference = relativeDifference(actual.data, expected.data)
    const times = `${actual.milliseconds.toFixed(1)} ms, the CPU ${expected.milliseconds.toFixed(1)} ms`
    if (!(difference <= BOUNDS[device.kind])) {
      const reason = `${name} computes other numbers than the CPU: ${difference.toExponential(1)} of the largest`
      return { ok: false, reason, milliseconds: undefined, cpuMilliseconds: expected.milliseconds }
    }
    return {
      ok: true,
      reason: `${name} computes what the CPU computes; ${times}`,
      milliseconds: actual.milliseconds,
      cpuMilliseconds: expected.milliseconds,
      hasHalf: await convertsHalf(device),
      multipliesBfloat16: await multipliesStored(device),
    }
  } catch (cause) {
    const message = messageOf(cause)
    return { ok: false, reason: message, milliseconds: undefined, cpuMilliseconds: undefined }
  }
}

function testGraph(): Graph {
  const g = new GraphBuilder()
  const x = g.input('x', 'float32', ['rows', WIDTH])
  const w = g.input('w', 'float32', [WIDTH, WIDTH])
  const scale = g.constant('float32', [WIDTH], new Float32Array(WIDTH).fill(1))
  const [normed] = g.SimplifiedLayerNormalization(x, scale, 1e-5)
  const hidden = g.Gemm(g.Gemm(normed, w, { transB: 1 }), w, { transB: 1 }, x)
  return g.finish([g.Softmax(hidden)])
}

/** Whether numbers come back from float16 rounded as it rounds them. A device that lacks the type refuses the run. */
export async function convertsHalf(device: Device): Promise<boolean> {
  const g = new GraphBuilder()
  const x = g.input('x', 'float32', ['numbers'])
  const back = g.Cast(g.Cast(x, 'float16'), 'float32')
  const session = await Session.create(g.finish([back]), { device })
  try {
    const { data } = (await session.run({ x: floatTensor(HALF_PROBE, [HALF_PROBE.length]) }))[back.name]!
    return HALF_PROBE.every((number, index) => float16Value(float16Bits(number)) === data[index])
  } catch {
    return false
  } finally {
    await session.release()
  }
}

/** Whether a product with a weight stored as bfloat16 comes out right, of numbers that are exact in it. */
export async function multipliesStored(device: Device): Promise<boolean> {
  if (device.kind === 'cpu' || !multipliesBfloat16(device.kind)) return false
  const g = new GraphBuilder()
  const row = Float32Array.from({ length: PRODUCT_WIDTH }, (_, i) => i + 1)
  const weight = g.constant('bfloat16', [1, PRODUCT_WIDTH], float32ToBfloat16(row))
  const x = g.input('x', 'float32', [1, PRODUCT_WIDTH])
  const y = g.Gemm(x, g.Cast(weight, 'float32'), { transB: 1 })
  const session = await Session.create(g.finish([y]), { device, bfloat16: true })
  try {
    const { data } = (await session.run({ x: floatTensor(row, [1, PRODUCT_WIDTH]) }))[y.name]!
    return data[0] === row.reduce((sum, value) => sum + value * value, 0)
  } catch {
    return false
  } finally {
    await session.release()
  }
}

async function measure(graph: Graph, device: Device): Promise<{ data: Float32Array; milliseconds: number }> {
  const session = await Session.create(graph, { device })
  try {
    const feeds: Record<string, Tensor> = { x: wave(ROWS, WIDTH, 1), w: wave(WIDTH, WIDTH, 0.05) }
    let data = new Float32Array(0)
    let milliseconds = Number.POSITIVE_INFINITY
    // the first run compiles shaders
    for (let run = 0; run <= RUNS; run++) {
      const began = performance.now()
      const results = await session.run(feeds)
      if (run > 0) milliseconds = Math.min(milliseconds, performance.now() - began)
      data = Object.values(results)[0]!.data as Float32Array<ArrayBuffer>
    }
    return { data, milliseconds }
  } finally {
    await session.release()
  }
}

function wave(rows: number, columns: number, height: number): Tensor {
  const data = Float32Array.from({ length: rows * columns }, (_, i) => height * Math.sin(i * 0.7 + i / 1000))
  return floatTensor(data, [rows, columns])
}

function relativeDifference(actual: Float32Array, expected: Float32Array): number {
  let largest = 0
  let difference = 0
  for (let i = 0; i < expected.length; i++) {
    largest = Math.max(largest, Math.abs(expected[i]!))
    const distance = Math.abs(actual[i]! - expected[i]!)
    difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(difference, distance)
  }
  return difference / largest
}
