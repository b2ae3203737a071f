import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { changedConfig, readModelConfig } from '../weights/model-files.ts'
import { type Adjust, type ByteProgress, writeModel } from '../weights/model-writer.ts'
import { WeightFolder } from '../weights/safetensors.ts'
import { type RawConfig, readRawConfig, unsupportedField } from './raw-config.ts'

export interface ExpandOptions {
  baseFolder: string
  /** Must not exist, or be empty. */
  outputFolder: string
  /** Layers to put in; divides the number of layers. */
  blocks: number
  onProgress?: (progress: ByteProgress) => void
  signal?: AbortSignal
}

/** The modules that end a layer's two residual branches: without them a layer passes its input on. */
const BRANCH_ENDS = ['o_proj', 'down_proj']

/** Fields that say something of single layers by their index. */
const BY_INDEX = ['mlp_only_layers', 'no_rope_layers']

/**
 * LLaMA Pro's block expansion (Wu et al. 2024, arXiv:2401.02415): behind every layers / blocks layers stands a copy of the
 * last of them whose branches end in zeros, so that the larger model computes what the base does until the copies are
 * trained (`use_llama_pro` with freeze_trainable_layers = blocks).
 *
 * @returns the number of layers of the new model.
 * @throws EngineError `invalid` for blocks that don't divide the layers, `unsupported` for a model whose layers end
 *   otherwise, and what writeModel throws.
 */
export async function expandBlocks(options: ExpandOptions): Promise<number> {
  const { baseFolder, blocks, ...rest } = options
  const raw = readRawConfig(baseFolder)
  const layers = Number(raw.num_hidden_layers)
  checkExpandable(raw, layers, blocks)
  const group = layers / blocks
  const placesOf = (layer: number): number[] => {
    const place = layer + Math.floor(layer / group)
    return layer % group === group - 1 ? [place, place + 1] : [place]
  }
  const namesOf = (tensor: string): string[] => {
    const match = /^(.*?\.)(\d+)(\..*)$/.exec(tensor)
    if (!match) return [tensor]
    return placesOf(Number(match[2])).map((place) => `${match[1]}${place}${match[3]}`)
  }
  await writeModel({
    ...rest,
    modelFolder: baseFolder,
    namesOf,
    adjust: zeroedCopies(baseFolder, namesOf),
    finish: async (partial) => writeConfig(partial, layers, placesOf),
  })
  return layers + blocks
}

function checkExpandable(raw: RawConfig, layers: number, blocks: number): void {
  if (!Number.isInteger(blocks) || blocks < 1 || layers % blocks !== 0) {
    const message =
      `${blocks} new blocks cannot be spread evenly over the model's ${layers} layers: the number of blocks must divide ` +
      `that of the layers (${divisorsOf(layers).join(', ')})`
    throw new EngineError('invalid', 'layers_not_divisible', message, { param: 'blocks' })
  }
  for (const field of BY_INDEX) {
    const value = raw[field]
    if (Array.isArray(value) && value.length > 0)
      throw unsupportedField(raw, field, value, 'layers alike are')
  }
}

function divisorsOf(count: number): number[] {
  return Array.from({ length: count }, (_, index) => index + 1).filter((divisor) => count % divisor === 0)
}

/** What makes the second copy of a layer pass its input on. */
function zeroedCopies(baseFolder: string, namesOf: (tensor: string) => string[]): Map<string, Adjust> {
  const source = WeightFolder.open(baseFolder)
  source.close()
  const ends = [...source.entries.keys()].filter((name) =>
    BRANCH_ENDS.some((end) => name.includes(`.${end}.`)),
  )
  if (!BRANCH_ENDS.every((end) => ends.some((name) => name.includes(`.${end}.`)))) {
    const message = `the layers of ${baseFolder} do not end in ${BRANCH_ENDS.join(' and ')}, so no block can be put in`
    throw new EngineError('unsupported', 'expand_unsupported', message, { param: 'model' })
  }
  const copies = ends.flatMap((name) => namesOf(name).slice(1))
  return new Map(copies.map((name) => [name, { rows: (values: Float32Array) => void values.fill(0) }]))
}

function writeConfig(folder: string, layers: number, placesOf: (layer: number) => number[]): void {
  const path = join(folder, 'config.json')
  const { layer_types: types } = readModelConfig(folder)
  const repeated =
    Array.isArray(types) && types.length === layers
      ? { layer_types: types.flatMap((type, layer) => placesOf(layer).map(() => type)) }
      : {}
  const expanded = placesOf(layers - 1).at(-1)! + 1
  writeFileDurably(path, changedConfig(folder, { ...repeated, num_hidden_layers: expanded }))
}
