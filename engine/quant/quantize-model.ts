import { rmSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'
import { EngineError } from '../errors.ts'
import type { OpenModel } from '../models/index.ts'
import type { OrderedBlocks } from '../packed/gptq-reader.ts'
import { checkCancelled, checkFreeSpace, diskError } from '../weights/atomic-folder.ts'
import { CalibratedLayer, passedFolder } from './calibrated-layer.ts'
import { HiddenStates } from './hidden-file.ts'
import { embed, LayerGraphs } from './layer-graph.ts'
import { MatrixProduct } from './matrix-product.ts'
import { roundToNearest } from './nearest.ts'
import type { QuantizeOptions, QuantizeWalk } from './quantize-walk.ts'
import type { QuantizedLayers } from './quantized-layers.ts'

/**
 * Quantizes every linear module of the layers (embedding and output head stay as they are), one layer after another, into
 * `layers`; layers that are there already are not done again. With GPTQ each layer's Hessians come from the calibration
 * text as the layers before it, already quantized, pass it on.
 *
 * @throws EngineError `unsupported` for routed experts, `cancelled`.
 */
export async function quantizeModel(
  model: OpenModel,
  layers: QuantizedLayers,
  options: QuantizeOptions,
): Promise<void> {
  checkQuantizable(model)
  const length = options.calibration[0]?.length ?? 1
  const graphs = new LayerGraphs(model, length, options.threads)
  const product = await MatrixProduct.create(options.threads)
  try {
    const walk = { model, layers, options, graphs, product }
    if (options.method === 'rtn') await quantizeWithoutData(walk)
    else await quantizeWithData(walk, length)
  } finally {
    await graphs.release()
    await product.release()
  }
}

/** @throws EngineError `unsupported` for routed experts. */
export function checkQuantizable({ config }: Pick<OpenModel, 'config'>): void {
  if (!config.experts) return
  throw new EngineError(
    'unsupported',
    'experts_not_quantized',
    `models with routed experts (${config.modelType}) are not quantized here; export them at 16 bits, or as gguf with method rtn`,
    { param: 'bits' },
  )
}

async function quantizeWithoutData({ model, layers, options, graphs }: QuantizeWalk): Promise<void> {
  const count = model.config.layers
  for (let layer = 0; layer < count; layer++) {
    checkCancelled(options.signal)
    if (!layers.has(layer)) {
      const { groups } = await graphs.describe(layer)
      const matrices = new Map<string, OrderedBlocks>()
      for (const { path, inFeatures: columns, outFeatures: rows } of groups.flatMap(
        ({ modules }) => modules,
      )) {
        const values = model.weights.readFloat32(`${path}.weight`)
        const { bits, groupSize: blockSize, symmetric } = options
        const blocks = roundToNearest(values, { bits, rows, columns, blockSize, symmetric })
        matrices.set(path, { blocks, order: undefined })
        await setImmediate() // lets a cancellation in
      }
      layers.write(layer, { matrices, changed: new Map(), packed: new Map() })
    }
    options.onProgress?.(layer + 1, count, 0)
  }
}

/** @throws EngineError `too_large` with the bytes needed and free when the disk is full, before starting or later. */
async function quantizeWithData(walk: QuantizeWalk, length: number): Promise<void> {
  const { model, layers, options } = walk
  const { hiddenSize, intermediateSize, layers: count } = model.config
  // The text's states before and behind a layer, and what its stages pass on.
  const neededBytes = 4 * options.calibration.length * length * (3 * hiddenSize + intermediateSize)
  checkFreeSpace(layers.folder, neededBytes)
  const states = new HiddenStates(layers.folder, options.calibration.length, length * hiddenSize)
  try {
    const first = await firstLayer(walk, states)
    for (let layer = first; layer < count; layer++) {
      const isLast = layer + 1 === count
      if (!(isLast && layers.has(layer))) await quantizeLayer(walk, states, layer, length)
      options.onProgress?.(layer + 1, count, 0)
    }
  } catch (error) {
    throw diskError(error, layers.folder, neededBytes)
  } finally {
    rmSync(passedFolder(walk), { recursive: true, force: true })
  }
}

async function quantizeLayer(
  walk: QuantizeWalk,
  states: HiddenStates,
  layer: number,
  length: number,
): Promise<void> {
  const calibration = new CalibratedLayer(walk, states, layer, length)
  try {
    walk.layers.write(layer, await calibration.quantize())
    if (layer + 1 < walk.model.config.layers) await states.write(layer + 1, calibration.outputs())
  } finally {
    calibration.close()
  }
}

/** Where to go on: the last layer whose input is on disk, or the first one with the embedded calibration text. */
async function firstLayer({ model, options }: QuantizeWalk, states: HiddenStates): Promise<number> {
  for (let layer = model.config.layers - 1; layer >= 0; layer--) if (states.has(layer)) return layer
  const embedded = function* () {
    for (const tokens of options.calibration) yield embed(model, model.weights, tokens)
  }
  await states.write(0, embedded())
  return 0
}
