import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import type { Graph } from '../../../engine/graph/graph.ts'
import { lower } from '../../../engine/graph/lower.ts'
import { printGraph } from '../../../engine/graph/print.ts'
import { openModel } from '../../../engine/models/index.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { objectiveOf } from '../../../engine/train/objectives/index.ts'
import { buildStepGraph } from '../../../engine/train/step-graph.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { isBfloat16Product } from '../../bfloat16-products.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { graphsOf } from './device-graphs.ts'

/** Their experts are sorted and parted by what the router finds on the device: integers that it cannot compute with. */
const EXPERTS = ['mixtral', 'qwen3_moe']

describe('lowering for WebGPU', () => {
  it('takes integers to the host and leaves names of inputs and outputs', () => {
    const g = new GraphBuilder()
    const ids = g.input('ids', 'int64', ['batch', 'seq'])
    g.bindDim('batch', ids, 0)
    g.bindDim('seq', ids, 1)
    const table = g.input('table', 'float32', [8, 4])
    const rows = g.Gather(table, g.Reshape(ids, ['batch*seq']))
    const wide = g.Expand(g.Reshape(rows, ['batch', 1, 'seq', 4]), ['batch', 3, 'seq', 4])
    const graph = g.finish([g.FusedMatMul(wide, wide, { transB: 1, alpha: 0.5 })])
    const { host, device, fallbacks } = lower(graph, 'webgpu')
    expect(fallbacks).toEqual([])
    expect(device.outputs).toEqual(graph.outputs)
    expect(device.nodes.map(({ op }) => op)).not.toContain('FusedMatMul')
    expect(device.nodes.flatMap(({ outputs }) => outputs).every(({ dtype }) => dtype === 'float32')).toBe(
      true,
    )
    expect(host!.inputs.map(({ name }) => name)).toEqual(['ids'])
    expect(device.inputs.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['table', ...host!.outputs.map(({ name }) => name)]),
    )
    expect(device.inputs.map(({ name }) => name)).not.toContain('ids')
  })

  it('widens a bf16 weight once, however often the backward pass does', () => {
    const graph = graphsOf(openModel(ANNEAL_TINY))['a LoRA step']
    const isCast = ({ op, inputs }: (typeof graph.nodes)[number]) =>
      op === 'Cast' && inputs[0]!.dtype === 'bfloat16'
    const widened = lower(graph, 'webgpu')
      .device.nodes.filter(isCast)
      .map(({ inputs }) => inputs[0]!.name)
    expect(new Set(graph.nodes.filter(isCast).map(({ inputs }) => inputs[0]!.name)).size).toBeLessThan(
      graph.nodes.filter(isCast).length,
    )
    expect(new Set(widened).size).toBe(widened.length)
    // CUDA keeps bf16 in memory: a widened weight lives for one use
    expect(lower(graph, 'cuda').device.nodes.filter(isCast)).toHaveLength(graph.nodes.filter(isCast).length)
  })

  it('a node without a kernel is named', () => {
    const g = new GraphBuilder()
    const x = g.input('x', 'float32', [6])
    const order = g.TopK(x, 6, 0)[1]
    const { fallbacks } = lower(g.finish([g.TopK(order, 6, 0)[1]]), 'webgpu')
    expect(fallbacks).toEqual([expect.stringMatching(/^TopK int64 \(TopK_1/)])
  })

  it.each(Object.entries(graphsOf(openModel(ANNEAL_TINY))))(
    '%s of the demo model has a kernel for every node',
    (_, graph) => {
      expect(lower(graph, 'webgpu').fallbacks, printGraph(graph).slice(0, 500)).toEqual([])
      expect(lower(graph, 'cuda').fallbacks).toEqual([])
    },
  )
})

describe('every stage on a device', () => {
  const stages = [
    { stage: 'sft', compute_accuracy: true },
    { stage: 'rm' },
    { stage: 'kto' },
    ...['sigmoid', 'hinge', 'ipo', 'orpo', 'simpo'].map((pref_loss) => ({ stage: 'dpo', pref_loss })),
  ]
  it.each(stages)('a step of $stage $pref_loss has a kernel for every node', (fields) => {
    const objective = objectiveOf(parseTrainConfig({ model: 'tiny', dataset: 'set', ...fields }))
    const options = {
      method: { kind: 'full' },
      objective,
      maxLength: 64,
      initialize: () => new Float32Array(),
    } as const
    for (const purpose of ['training', 'evaluation'] as const) {
      const { graph } = buildStepGraph(openModel(ANNEAL_TINY), options, purpose)
      expect(lower(graph, 'webgpu').fallbacks).toEqual([])
      expect(lower(graph, 'cuda').fallbacks).toEqual([])
    }
  })
})

const reason = sharedMissing('golden') ? NEEDS_SHARED : ''
describe.skipIf(reason !== '')(`every family on WebGPU ${reason}`, () => {
  const golden = join(SHARED, 'golden')
  const names =
    reason === '' ? readdirSync(golden).filter((name) => existsSync(join(golden, name, 'model'))) : []
  it.each(names.filter((name) => !EXPERTS.includes(name)))('%s has a kernel for every node', (name) => {
    for (const [what, graph] of Object.entries(graphsOf(openModel(join(golden, name, 'model'))))) {
      expect({ what, fallbacks: lower(graph, 'webgpu').fallbacks }).toEqual({ what, fallbacks: [] })
    }
  })

  it.each(names.filter((name) => EXPERTS.includes(name)))(
    '%s leaves the places of its experts to the CPU',
    (name) => {
      for (const graph of Object.values(graphsOf(openModel(join(golden, name, 'model'))))) {
        const { fallbacks } = lower(graph, 'webgpu')
        expect(fallbacks.length).toBeGreaterThan(0)
        // integers, and cuts into parts whose sizes they are
        for (const each of fallbacks) expect(each).toMatch(/ (int64|bool) |^(Split|Cast) /)
      }
    },
  )
})

describe('lowering for CUDA with products of bfloat16', () => {
  const model = openModel(ANNEAL_TINY)
  const { decoding, evaluation, ...others } = graphsOf(model)
  const method = { kind: 'lora', rank: 4, scale: 2, dropout: 0, targets: 'all' } as const
  const lora = (more: object) =>
    buildStepGraph(model, { method, maxLength: 32, lossChunks: 2, ...more }, 'training').graph
  const graphs = {
    'a LoRA step': lora({}),
    'a LoRA step with checkpointing': lora({ checkpointing: true }),
    evaluation: buildStepGraph(model, { method, maxLength: 32 }, 'evaluation').graph,
    decoding,
    'decoding with adapters': others['decoding with adapters'],
  }
  /** Tensors of float32 that are computed from weights alone. */
  const widened = (graph: Graph) => {
    const stored = new Set(graph.weights.map(({ value }) => value.name))
    const made = graph.nodes.filter(({ inputs, outputs }) => {
      if (!inputs.every((input) => input && stored.has(input.name))) return false
      for (const { name } of outputs) stored.add(name)
      return true
    })
    return made.flatMap(({ outputs }) => outputs).filter(({ dtype }) => dtype === 'float32')
  }

  it.each(Object.entries(graphs))('%s has no float32 copy of a weight', (_, graph) => {
    expect(widened(lower(graph, 'cuda').device)).not.toEqual([])
    expect(widened(lower(graph, 'cuda', { bfloat16: true }).device)).toEqual([])
  })

  it.each(Object.entries(graphs))('%s rounds once what several products read', (_, graph) => {
    const { nodes } = lower(graph, 'cuda', { bfloat16: true }).device
    const rounded = nodes.filter(({ op, outputs }) => op === 'Cast' && outputs[0]!.dtype === 'bfloat16')
    const names = rounded.map(({ inputs }) => inputs[0]!.name)
    expect(new Set(names).size).toBe(names.length)
    expect(names.length).toBeLessThanOrEqual(nodes.filter(isBfloat16Product).length)
  })

  it('multiplies each weight forward, and backward where a gradient goes on, as often as float32 did', () => {
    for (const graph of Object.values(graphs)) {
      const products = graph.nodes.filter(({ op }) => op === 'Gemm').length
      const { nodes } = lower(graph, 'cuda', { bfloat16: true }).device
      expect(nodes.filter(({ op }) => op === 'Gemm')).toHaveLength(products)
    }
  })

  it("leaves what is trained, the adapters' products and all other devices as they were", () => {
    const full = others['a full step']
    expect(lower(full, 'cuda', { bfloat16: true }).device).toEqual(lower(full, 'cuda').device)
    const step = graphs['a LoRA step']
    expect(lower(step, 'webgpu', { bfloat16: true }).device).toEqual(lower(step, 'webgpu').device)
    const { nodes } = lower(step, 'cuda', { bfloat16: true }).device
    const ofAdapters = nodes.filter(({ inputs }) => inputs.some((input) => input?.name.includes('.lora_')))
    expect(ofAdapters.length).toBeGreaterThan(0)
    expect(ofAdapters.filter(isBfloat16Product)).toEqual([])
  })

  it('leaves weights that are stored as float16 or float32 as they were', () => {
    for (const dtype of ['float16', 'float32'] as const) {
      const g = new GraphBuilder()
      const numbers = dtype === 'float16' ? new Uint16Array(32) : new Float32Array(32)
      const weight = g.Cast(g.constant(dtype, [4, 8], numbers), 'float32')
      const graph = g.finish([g.Gemm(g.input('x', 'float32', ['rows', 8]), weight, { transB: 1 })])
      expect(lower(graph, 'cuda', { bfloat16: true }).device).toEqual(lower(graph, 'cuda').device)
    }
  })
})
