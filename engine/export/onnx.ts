import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import type { Graph } from '../graph/graph.ts'
import type { Value } from '../graph/values.ts'
import type { OpenModel } from '../models/index.ts'
import { languageModelHead } from '../nn/decoder-layer.ts'
import { exportedAttention } from '../nn/exported-attention.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { ModelBuilder, TOKENS } from '../nn/model-builder.ts'
import { encodeModel } from '../onnx/encode.ts'
import type { IntBlocks } from '../packed/int-blocks.ts'
import { nbitsProduct, nbitsShapes, packNBits } from '../packed/nbits-packing.ts'
import type { QuantizedLayers } from '../quant/quantized-layers.ts'
import { QuantizedSource } from '../quant/quantized-source.ts'
import { checkCancelled } from '../weights/atomic-folder.ts'
import { encodeFloat32, type WeightDType } from '../weights/dtypes.ts'
import {
  type PlannedTensor,
  SAFETENSORS_NAMES,
  SafetensorsWriter,
  WeightFolder,
} from '../weights/safetensors.ts'
import { tensorBytes } from '../weights/safetensors-header.ts'
import { writeKept } from './kept-tensor.ts'
import { writeOnnxConfigs } from './onnx-configs.ts'

export interface OnnxWriteOptions {
  model: OpenModel
  bits: 16 | 8 | 4
  /** The quantized layers; undefined at full width. */
  layers: QuantizedLayers | undefined
  /** Of everything that is not quantized. */
  dtype: WeightDType
  onProgress?: (fraction: number, message: string) => void
  signal?: AbortSignal
}

/** Longest context of the exported rotary tables. */
const MAX_POSITIONS = 32_768
/** 0 computes in float32 throughout: the export says what its report measured. */
const ACCURACY_LEVEL = 0

/** Where a quantized matrix stands. */
type Place = { layer: number; size: Omit<IntBlocks, 'codes' | 'scales' | 'zeros'> }

/**
 * Writes a decoder with KV cache in the folder layout of transformers.js (onnx/model_q4.onnx beside config and tokenizer)
 * and of onnxruntime-genai (genai_config.json). The weights' file is a safetensors file into which the graph points.
 *
 * @returns bytes of the weights.
 * @throws EngineError `invalid` for a tensor that does not fit its dtype, `cancelled`.
 */
export async function writeOnnx(folder: string, options: OnnxWriteOptions): Promise<number> {
  const { model, bits, dtype } = options
  const name = onnxFileName(bits, dtype)
  const data = `${name}_data`
  mkdirSync(join(folder, 'onnx'))
  const places = quantizedPlaces(options)
  const bytes = await writeWeights(join(folder, 'onnx', data), places, options)
  const weights = WeightFolder.open(join(folder, 'onnx'), { fileName: data })
  try {
    const graph = decoderGraph({ ...model, weights }, places)
    writeFileSync(join(folder, 'onnx', name), encodeModel(graph))
  } finally {
    weights.close()
  }
  writeOnnxConfigs(folder, model, { file: name, dtype, positions: positionsOf(model) })
  return bytes
}

/** transformers.js' names: dtype 'q4' loads onnx/model_q4.onnx. */
function onnxFileName(bits: number, dtype: WeightDType): string {
  const suffix = bits === 4 ? '_q4' : bits === 8 ? '_quantized' : dtype === 'float32' ? '' : '_fp16'
  return `model${suffix}.onnx`
}

function positionsOf({ config }: OpenModel): number {
  return Math.min(config.maxPositions, MAX_POSITIONS)
}

function quantizedPlaces({ model, layers }: OnnxWriteOptions): ReadonlyMap<string, Place> {
  const places = new Map<string, Place>()
  if (!layers) return places
  for (let layer = 0; layer < model.config.layers; layer++) {
    for (const [path, { blocks }] of layers.read(layer).matrices) {
      const { bits, rows, columns, blockSize } = blocks
      places.set(path, { layer, size: { bits, rows, columns, blockSize } })
    }
  }
  return places
}

const part = (path: string, name: 'codes' | 'scales' | 'zeros') => `${path}.weight.${name}`

async function writeWeights(
  path: string,
  places: ReadonlyMap<string, Place>,
  { model, layers, dtype, onProgress, signal }: OnnxWriteOptions,
): Promise<number> {
  const kept = [...model.weights.entries.values()]
    .filter(({ name }) => !places.has(name.replace(/\.weight$/, '')))
    .map(({ name, shape }): PlannedTensor => ({ name, shape, dtype: SAFETENSORS_NAMES[dtype] }))
  const planned = [...kept, ...[...places].flatMap(([module, { size }]) => partsOf(module, size))]
  const total = planned.reduce((sum, { dtype: type, shape }) => sum + tensorBytes(type, shape)!, 0)
  const count = kept.length + places.size
  const writer = new SafetensorsWriter(path, planned)
  let done = 0
  const step = async (message: string) => {
    onProgress?.(++done / count, message)
    await setImmediate() // lets a cancellation in
    checkCancelled(signal)
  }
  try {
    const source = layers && new QuantizedSource(model.weights, layers, model.config.names.layers)
    for (const { name } of kept) {
      writeKept(writer, source ?? model.weights, model.weights.entry(name), dtype)
      await step(name)
    }
    for (const [module, { layer }] of places) {
      const { codes, scales, zeros } = packNBits(source!.layer(layer).matrices.get(module)!.blocks)
      writer.write(part(module, 'codes'), codes)
      writer.write(part(module, 'scales'), encodeFloat32(scales, 'float32'))
      writer.write(part(module, 'zeros'), zeros)
      await step(module)
    }
    writer.finish()
  } catch (error) {
    writer.abort()
    throw error
  }
  return total
}

function partsOf(module: string, size: Place['size']): PlannedTensor[] {
  const { codes, scales, zeros } = nbitsShapes(size)
  return [
    { name: part(module, 'codes'), dtype: 'U8', shape: codes },
    { name: part(module, 'scales'), dtype: 'F32', shape: scales },
    { name: part(module, 'zeros'), dtype: 'U8', shape: zeros },
  ]
}

/** x·Wᵀ of a matrix in blocks. */
function blockProduct(m: ModelBuilder, x: Value, { path }: LinearModule, { size }: Place): Value {
  const { codes, scales, zeros } = nbitsShapes(size)
  return nbitsProduct(m.g, x, size, ACCURACY_LEVEL, {
    codes: m.stored(part(path, 'codes'), 'uint8', codes),
    scales: m.stored(part(path, 'scales'), 'float32', scales),
    zeros: m.stored(part(path, 'zeros'), 'uint8', zeros),
  })
}

/** The graph that both runtimes call: ids, mask and past in; logits [batch, seq, vocabulary] and present out. */
function decoderGraph(model: OpenModel, places: ReadonlyMap<string, Place>): Graph {
  const { config, family, weights } = model
  const m = new ModelBuilder(weights, {
    product: (builder, x, module) => {
      const place = places.get(module.path)
      return place && blockProduct(builder, x, module, place)
    },
  })
  const attention = exportedAttention(m, config)
  const hidden = family.build(m, config, { attention, positions: positionsOf(model) })
  const logits = languageModelHead(m, config, hidden, m.g.Range(TOKENS))
  const byRow = m.g.Reshape(logits, ['batch', 'seq', config.vocabSize])
  const outputs: [string, Value][] = [['logits', byRow]]
  for (const [layer, { key, value }] of attention.present.entries()) {
    outputs.push([`present.${layer}.key`, key], [`present.${layer}.value`, value])
  }
  const graph = m.g.finish(outputs.map(([, value]) => value))
  return renamed(graph, new Map(outputs.map(([name, value]) => [value.name, name])))
}

/** The graph with other names for some of its edges. */
function renamed(graph: Graph, names: ReadonlyMap<string, string>): Graph {
  const rename = <V extends Value | null>(value: V): V => {
    const name = value && names.get(value.name)
    return name ? { ...value, name } : value
  }
  return {
    ...graph,
    outputs: graph.outputs.map(rename),
    nodes: graph.nodes.map((node) => ({
      ...node,
      inputs: node.inputs.map(rename),
      outputs: node.outputs.map(rename),
    })),
  }
}
