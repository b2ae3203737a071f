import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../errors.ts'
import type { OpenModel } from '../models/index.ts'
import { packGptq } from '../packed/gptq-packing.ts'
import { type GptqModule, gptqModules, quantizedModules } from '../quant/gptq-modules.ts'
import type { QuantizedLayers } from '../quant/quantized-layers.ts'
import { QuantizedSource } from '../quant/quantized-source.ts'
import { checkCancelled, writeFileDurably } from '../weights/atomic-folder.ts'
import { checkRange, encodeFloat32, type WeightDType } from '../weights/dtypes.ts'
import { CONFIG_FILE, carryFiles, changedConfig } from '../weights/model-files.ts'
import { type PlannedTensor, SAFETENSORS_NAMES, SafetensorsWriter } from '../weights/safetensors.ts'
import { tensorBytes } from '../weights/safetensors-header.ts'
import { planShards, shardFileName, writeIndex } from '../weights/shards.ts'
import type { ExportMethod } from './formats.ts'
import { writeKept } from './kept-tensor.ts'

export interface GptqWriteOptions {
  method: ExportMethod | undefined
  model: OpenModel
  layers: QuantizedLayers
  bits: 4 | 8
  groupSize: number
  symmetric: boolean
  actOrder: boolean
  damping: number
  /** Of everything that is not quantized. */
  dtype: WeightDType
  shardBytes: number
  onProgress?: (fraction: number, message: string) => void
  signal?: AbortSignal
}

/** What is written together: a tensor that stays, or all tensors of a quantized module. */
interface Unit {
  readonly tensors: readonly PlannedTensor[]
  readonly byteLength: number
  /** The checkpoint's tensor, or the module's path with its layer. */
  readonly from: { readonly tensor: string } | { readonly path: string; readonly layer: number }
}

/**
 * Writes a quantized model in GPTQ's layout as GPTQModel, vLLM and transformers read it: packed safetensors in shards,
 * quantize_config.json, and the same as quantization_config in config.json.
 *
 * @returns bytes of the weights.
 * @throws EngineError `unsupported` for matrices whose sizes cannot be packed into 32-bit words, `cancelled`.
 */
export async function writeGptq(folder: string, options: GptqWriteOptions): Promise<number> {
  const { model, layers, dtype, onProgress, signal } = options
  // Version 1, which every reader knows, stores zero points one too small and so cannot hold 0; GPTQModel trusts no
  // asymmetric file of version 1 but its own.
  const version = options.symmetric ? 1 : 2
  const units = planUnits(options)
  const shards = planShards(units, options.shardBytes)
  const total = units.reduce((sum, { byteLength }) => sum + byteLength, 0)
  let done = 0
  const source = new QuantizedSource(model.weights, layers, model.config.names.layers)
  for (const [index, shard] of shards.entries()) {
    const planned = shard.flatMap(({ tensors }) => tensors)
    const writer = new SafetensorsWriter(join(folder, shardFileName(index, shards.length)), planned)
    try {
      for (const { from, byteLength } of shard) {
        checkCancelled(signal)
        if ('tensor' in from) writeKept(writer, source, model.weights.entry(from.tensor), dtype)
        else {
          const matrix = source.layer(from.layer).matrices.get(from.path)!
          for (const module of gptqModules(model.config, from.path, matrix))
            writeModule(writer, module, version)
        }
        done += byteLength
        onProgress?.(done / total, 'tensor' in from ? from.tensor : from.path)
        await setImmediate() // lets a cancellation in
      }
      writer.finish()
    } catch (error) {
      writer.abort()
      throw error
    }
  }
  const names = shards.map((shard) => shard.flatMap(({ tensors }) => tensors))
  writeIndex(folder, names, total)
  writeConfigs(folder, options, version)
  return total
}

function planUnits({ model, layers, dtype }: GptqWriteOptions): Unit[] {
  const units: Unit[] = []
  const quantized = new Set<string>()
  for (let layer = 0; layer < model.config.layers; layer++) {
    for (const [path, matrix] of layers.read(layer).matrices) {
      quantized.add(`${path}.weight`)
      const tensors = gptqModules(model.config, path, matrix).flatMap(moduleTensors)
      units.push({ tensors, byteLength: bytesOf(tensors), from: { path, layer } })
    }
  }
  const kept = [...model.weights.entries.values()]
    .filter(({ name }) => !quantized.has(name))
    .map(({ name, shape }): Unit => {
      const tensors = [{ name, shape, dtype: SAFETENSORS_NAMES[dtype] }]
      return { tensors, byteLength: bytesOf(tensors), from: { tensor: name } }
    })
  return [...kept, ...units]
}

function moduleTensors({ path, matrix }: GptqModule): PlannedTensor[] {
  const { bits, rows, columns, blockSize } = matrix.blocks
  const perWord = 32 / bits
  if (rows % perWord !== 0 || columns % perWord !== 0) {
    throw new EngineError(
      'unsupported',
      'gptq_size_unsupported',
      `${path} is ${rows} × ${columns}; GPTQ packs only multiples of ${perWord} at ${bits} bits`,
      { param: 'format' },
    )
  }
  const groups = Math.ceil(columns / blockSize)
  return [
    { name: `${path}.qweight`, dtype: 'I32', shape: [columns / perWord, rows] },
    { name: `${path}.qzeros`, dtype: 'I32', shape: [groups, rows / perWord] },
    { name: `${path}.g_idx`, dtype: 'I32', shape: [columns] },
    { name: `${path}.scales`, dtype: 'F16', shape: [groups, rows] },
  ]
}

function bytesOf(tensors: readonly PlannedTensor[]): number {
  return tensors.reduce((sum, { dtype, shape }) => sum + tensorBytes(dtype, shape)!, 0)
}

function writeModule(writer: SafetensorsWriter, { path, matrix }: GptqModule, version: 1 | 2): void {
  const { qweight, qzeros, groupIndex, scales } = packGptq(matrix, version)
  const bytes = (words: Int32Array) => new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
  writer.write(`${path}.qweight`, bytes(qweight))
  writer.write(`${path}.qzeros`, bytes(qzeros))
  writer.write(`${path}.g_idx`, bytes(groupIndex))
  checkRange(`${path}.scales`, scales, 'float16')
  writer.write(`${path}.scales`, encodeFloat32(scales, 'float16'))
}

function writeConfigs(folder: string, options: GptqWriteOptions, version: 1 | 2): void {
  const format = version === 1 ? 'gptq' : 'gptq_v2'
  const quantization = {
    quant_method: 'gptq',
    bits: options.bits,
    group_size: options.groupSize,
    sym: options.symmetric,
    desc_act: options.actOrder,
    damp_percent: options.damping,
    static_groups: false,
    true_sequential: options.method === 'gptq',
    lm_head: false,
    modules_in_block_to_quantize: quantizedModules(options.model.config),
    format,
    checkpoint_format: format,
    pack_dtype: 'int32',
    meta: { quantizer: ['anneal'] },
  }
  carryFiles(options.model.folder, folder, options.dtype)
  writeFileDurably(join(folder, CONFIG_FILE), changedConfig(folder, { quantization_config: quantization }))
  writeFileDurably(join(folder, 'quantize_config.json'), `${JSON.stringify(quantization, null, 2)}\n`)
}
