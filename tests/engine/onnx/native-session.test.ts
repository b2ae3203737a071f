import { mkdtempSync, readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { buildDecoderGraph } from '../../../engine/generate/decoder-graph.ts'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import { lower } from '../../../engine/graph/lower.ts'
import { openModel } from '../../../engine/models/index.ts'
import { causalMask } from '../../../engine/nn/masks.ts'
import { updatedInPlace } from '../../../engine/onnx/in-place.ts'
import { loadOrtApi } from '../../../engine/onnx/ort-api.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { floatTensor, intTensor, type Tensor } from '../../../engine/tensor.ts'
import { installedBinding } from '../../../src/device/install/binding.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { readCase, writeModel } from '../../parity/families/reference-model.ts'
import { nodesByProvider } from './device-steps.ts'
import { keptTensorTests } from './kept-tensors.ts'

/** The CPU by the way that CUDA takes. */
const KEPT = { kind: 'cpu', keeps: true } as const

const ints = (...values: number[]) => intTensor(BigInt64Array.from(values, BigInt), [values.length])
const floats = (...values: number[]) => floatTensor(Float32Array.from(values), [values.length])

describe("onnxruntime's C interface", () => {
  it('is that of the library which the binding has loaded', async () => {
    const { folder, version } = installedBinding()
    expect((await loadOrtApi(folder)).version).toBe(version)
  })

  it("says in one line what to install where koffi's binary is missing", async () => {
    vi.resetModules()
    vi.doMock('koffi', () => {
      throw new Error('Cannot find the native Koffi module')
    })
    const { Session } = await import('../../../engine/onnx/session.ts')
    const g = new GraphBuilder()
    const graph = g.finish([g.Neg(g.input('x', 'float32', [1]))])
    await expect(Session.create(graph, { device: KEPT, keepOnDevice: [] })).rejects.toMatchObject({
      kind: 'unavailable',
      code: 'native_interface_missing',
      message: expect.stringMatching(/koffi.*npm install --include=optional/),
    })
    vi.doUnmock('koffi')
    vi.resetModules()
  })
})

describe('a session through it', () => {
  it("has the binding's numbers to the last bit, over weights in a file", async () => {
    const model = openModel(ANNEAL_TINY)
    const { graph, outputs } = buildDecoderGraph(model, { maxPositions: 64, adapters: 'none' })
    const { layers, keyValueHeads, headDim } = model.config
    const past = () => {
      const data = Float32Array.from({ length: keyValueHeads * 3 * headDim }, (_, i) => Math.sin(i))
      return floatTensor(data, [1, keyValueHeads, 1, 3, headDim])
    }
    const feeds: Record<string, Tensor> = {
      input_ids: intTensor(BigInt64Array.of(5n, 96n), [1, 2]),
      position_ids: intTensor(BigInt64Array.of(3n, 4n), [1, 2]),
      rows: ints(0, 1),
      past_mask: floatTensor(new Float32Array(3), [1, 1, 1, 1, 3]),
      attention_mask: causalMask(2),
    }
    for (const { name } of graph.inputs) if (/^past_(key|value)\./.test(name)) feeds[name] = past()
    const options = { weightsFolder: model.folder, foldWeights: true, prepack: true, threads: 1 }
    const [binding, native] = await Promise.all([
      Session.create(graph, options),
      Session.create(graph, { ...options, device: KEPT, keepOnDevice: [] }),
    ])
    const [expected, actual] = [await binding.run(feeds), await native.run(feeds)]
    expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort())
    expect(actual[outputs.logits]!.dims).toEqual([2, model.config.vocabSize])
    expect(actual[outputs.caches[0]!]!.dims[0]).toBe(2 * layers)
    for (const [name, { dtype, dims, data }] of Object.entries(expected)) {
      expect(actual[name]).toMatchObject({ dtype, dims: [...dims] })
      expect(bytesOf(actual[name]!.data).equals(bytesOf(data))).toBe(true)
    }
    await Promise.all([binding.release(), native.release()])
  })

  it('takes and gives every type, scalars, and arrays of no elements', async () => {
    const g = new GraphBuilder()
    const types = ['float32', 'float16', 'int64', 'int32', 'uint8', 'int8', 'bool'] as const
    const passed = types.map((type) => g.Detach(g.input(type, type, ['n'])))
    const sum = g.ReduceSum(g.input('x', 'float32', ['n']), [0], 0)
    const session = await Session.create(g.finish([...passed, sum]), { device: KEPT, keepOnDevice: [] })
    for (const n of [3, 0]) {
      const fill = <T extends NodeJS.TypedArray>(array: T) => array.fill(1 as never) as T
      const feeds: Record<string, Tensor> = {
        float32: { dtype: 'float32', dims: [n], data: fill(new Float32Array(n)) },
        float16: { dtype: 'float16', dims: [n], data: fill(new Uint16Array(n)) },
        int64: { dtype: 'int64', dims: [n], data: new BigInt64Array(n).fill(-(2n ** 62n)) },
        int32: { dtype: 'int32', dims: [n], data: fill(new Int32Array(n)) },
        uint8: { dtype: 'uint8', dims: [n], data: fill(new Uint8Array(n)) },
        int8: { dtype: 'int8', dims: [n], data: fill(new Int8Array(n)) },
        bool: { dtype: 'bool', dims: [n], data: fill(new Uint8Array(n)) },
        x: floatTensor(new Float32Array(n).fill(0.5), [n]),
      }
      const results = await session.run(feeds)
      for (const [index, type] of types.entries()) {
        expect(results[passed[index]!.name]).toEqual(feeds[type])
      }
      expect(results[sum.name]).toEqual({ dtype: 'float32', dims: [], data: Float32Array.of(n / 2) })
    }
    await session.release()
  })

  it('fails with the runtime’s words, and answers again', async () => {
    const g = new GraphBuilder()
    const sum = g.Add(g.input('x', 'float32', ['n']), g.input('y', 'float32', ['n']))
    const session = await Session.create(g.finish([sum]), { device: KEPT, keepOnDevice: [sum.name] })
    const failed = session.run({ x: floats(1, 2), y: floats(1, 2, 3) })
    await expect(failed).rejects.toMatchObject({
      kind: 'internal',
      code: 'session_run_failed',
      message: expect.stringContaining('Add'),
    })
    await expect(session.run({ x: floats(1) })).rejects.toMatchObject({ code: 'session_run_failed' })
    const { kept } = await session.runKeeping({ x: floats(1, 2), y: floats(3, 4) })
    expect(kept[sum.name]).toMatchObject({ dtype: 'float32', dims: [2] })
    kept[sum.name]!.dispose()
    await session.release()

    const broken = new GraphBuilder()
    const weight = broken.weight('w', 'float32', [1], { file: 'missing', offset: 0, byteLength: 4 })
    const graph = broken.finish([broken.Neg(weight)])
    await expect(Session.create(graph, { device: KEPT, keepOnDevice: [] })).rejects.toMatchObject({
      code: 'session_create_failed',
    })
  })

  it('writes a profile', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-profile-'))
    const g = new GraphBuilder()
    const graph = g.finish([g.Neg(g.input('x', 'float32', ['n']))])
    const options = { device: KEPT, keepOnDevice: [], profilePrefix: join(folder, 'native') }
    const session = await Session.create(graph, options)
    await session.run({ x: floats(1) })
    session.endProfiling()
    await session.release()
    expect(nodesByProvider(folder).CPUExecutionProvider).toHaveLength(1)
  })
})

describe('an output that is an input with rows scattered into it', () => {
  const scatter = () => {
    const g = new GraphBuilder()
    const target = g.input('target', 'float32', ['n', 1])
    const rows = g.input('rows', 'int64', ['k', 1])
    const values = g.input('values', 'float32', ['k', 1])
    return { g, target, made: g.ScatterND(target, rows, values, 'none') }
  }

  it('is written in its memory, if nothing else reads it', () => {
    const { g, made } = scatter()
    const graph = g.finish([made, g.Neg(made)])
    expect(updatedInPlace(graph, [made.name])).toEqual(new Map([[made.name, 'target']]))
    expect(updatedInPlace(graph, [])).toEqual(new Map())
    const other = scatter()
    const negated = other.g.Neg(other.target)
    expect(updatedInPlace(other.g.finish([other.made, negated]), [other.made.name])).toEqual(new Map())
  })

  it('leaves what is fed for a second input as it was', async () => {
    const g = new GraphBuilder()
    const target = g.input('target', 'float32', ['n', 1])
    const other = g.input('other', 'float32', ['n', 1])
    const made = g.ScatterND(
      target,
      g.input('rows', 'int64', ['k', 1]),
      g.input('values', 'float32', ['k', 1]),
      'none',
    )
    const seen = g.Add(g.Mul(made, g.scalar(0)), other)
    const session = await Session.create(g.finish([made, seen]), { device: KEPT, keepOnDevice: [made.name] })
    const column = (...values: number[]) => floatTensor(Float32Array.from(values), [values.length, 1])
    const rows = (...values: number[]) => intTensor(BigInt64Array.from(values, BigInt), [values.length, 1])
    const first = await session.runKeeping({
      target: column(1, 2, 3),
      other: column(0, 0, 0),
      rows: rows(0),
      values: column(9),
    })
    const tensor = first.kept[made.name]!
    const run = async (both: boolean) => {
      const feeds = {
        target: tensor,
        other: both ? tensor : column(7, 7, 7),
        rows: rows(2),
        values: column(5),
      }
      const { results, kept } = await session.runKeeping(feeds)
      kept[made.name]!.dispose()
      return Array.from(results[seen.name]!.data, Number)
    }
    expect(await run(true)).toEqual([9, 2, 3])
    expect(await run(true)).toEqual([9, 2, 3]) // and was not changed after that, either
    await run(false) // in place: what was fed now holds the result
    expect(await run(true)).toEqual([9, 2, 5])
    tensor.dispose()
    await session.release()
  })

  it.each(familyNames())('is each cache of %s, on CUDA', (name) => {
    const model = openModel(
      writeModel(join(mkdtempSync(join(tmpdir(), 'anneal-family-')), name), readCase(name)),
    )
    const options = { maxPositions: 32, adapters: 'plain', residentCache: true } as const
    const { graph, outputs } = buildDecoderGraph(model, options)
    expect(outputs.caches).toHaveLength(2 * model.config.layers)
    expect([...updatedInPlace(lower(graph, 'cuda').device, outputs.caches).keys()]).toEqual(outputs.caches)
  })
})

describe('the engine on a CPU that keeps tensors as CUDA does', { timeout: 60_000 }, () => {
  keptTensorTests(KEPT)
})

function familyNames(): string[] {
  const files = readdirSync(join(import.meta.dirname, '../../parity/families'))
  return files.filter((file) => file.endsWith('.json')).map((file) => file.replace(/\.json$/, ''))
}

function bytesOf({ buffer, byteOffset, byteLength }: Tensor['data']): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength)
}
