import type { DecoderConfig } from '../nn/config.ts'
import type { OrderedBlocks } from '../packed/gptq-reader.ts'
import { rowsOf } from '../packed/int-blocks.ts'

/** A module of GPTQ's layout. */
export interface GptqModule {
  readonly path: string
  readonly matrix: OrderedBlocks
}

/** The one module of gate and up that transformers has in phi3, glm and glm4, and what its rows are in turn. */
const [JOINED, PARTS] = ['gate_up_proj', ['gate_proj', 'up_proj']] as const

/**
 * Families whose gate and up are written apart: GPTQModel (from 7 on) takes such models apart before it loads them, and vLLM's
 * classes join what they find. Only glm stays as it is, which vLLM loads by transformers' own class, so that of vLLM,
 * transformers and GPTQModel two load it.
 */
const APART: ReadonlySet<string> = new Set(['phi3', 'glm4'])

/** The modules as which readers of GPTQ's layout look for a matrix. */
export function gptqModules(
  { modelType, names }: DecoderConfig,
  path: string,
  matrix: OrderedBlocks,
): GptqModule[] {
  if (!APART.has(modelType) || names.gateUp !== JOINED || !path.endsWith(`.${JOINED}`))
    return [{ path, matrix }]
  const rows = matrix.blocks.rows / PARTS.length
  return PARTS.map((name, part) => ({
    path: `${path.slice(0, -JOINED.length)}${name}`,
    matrix: { ...matrix, blocks: rowsOf(matrix.blocks, part * rows, rows) },
  }))
}

/**
 * A layer's quantized modules, for the field modules_in_block_to_quantize, where readers would look for others: vLLM takes
 * phi3's joined module for one that is not quantized, unless it is named here. Undefined elsewhere.
 */
export function quantizedModules({ modelType, names }: DecoderConfig): string[][] | undefined {
  if (modelType !== 'phi3') return undefined
  const { attention, queryKeyValue, output, mlp, gateUp, down } = names
  return [queryKeyValue, output]
    .map((name) => [`${attention}.${name}`])
    .concat([gateUp, down].map((name) => [`${mlp}.${name}`]))
}

/** A config with the names that modules have in a folder of GPTQ's layout, given what it holds. */
export function withGptqNames(config: DecoderConfig, has: (tensor: string) => boolean): DecoderConfig {
  const { names } = config
  const isApart = has(`${names.layers}.0.${names.mlp}.${PARTS[0]}.qweight`)
  return names.gateUp === JOINED && isApart ? { ...config, names: { ...names, gateUp: PARTS } } : config
}
