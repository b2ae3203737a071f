import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { copyFile, link } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { commitFolder, writeFileDurably } from './atomic-folder.ts'
import type { WeightDType } from './dtypes.ts'
import { changeJson } from './json-edit.ts'

export const CONFIG_FILE = 'config.json'

/** Larger files beside the weights are not part of a model that another program loads. */
const MAX_CARRIED_BYTES = 100_000_000

/** Weights and pickles, in any framework's form; they are never carried, and pickles never read. */
const WEIGHT_FILES =
  /\.(safetensors|bin|pt|pth|pkl|pickle|ckpt|msgpack|h5|gguf|onnx|onnx_data|npz|part)$|\.index\.json$/
/** What a training run or an earlier export left beside the model: untrue of the new one. */
const OF_THE_OLD_FOLDER = new Set([
  'adapter_config.json',
  'all_results.json',
  'eval_results.json',
  'manifest.json',
  'rng_state.json',
  'run_state.json',
  'scheduler.json',
  'SHA256SUMS',
  'train_results.json',
  'trainer_log.jsonl',
  'trainer_state.json',
  'training_args.yaml',
])
/** The curves of the training that made the old model, under whatever name they were kept. */
const PICTURES = /^training_\w+\.png$/

/** The small files that make weights a model: config, generation config, tokenizer, chat template, licence. */
export function carriedFiles(modelFolder: string): string[] {
  return readdirSync(modelFolder)
    .filter((name) => !name.startsWith('.') && !WEIGHT_FILES.test(name))
    .filter((name) => !OF_THE_OLD_FOLDER.has(name) && !PICTURES.test(name))
    .filter((name) => {
      const stat = statSync(join(modelFolder, name), { throwIfNoEntry: false })
      return stat?.isFile() && stat.size <= MAX_CARRIED_BYTES
    })
    .sort()
}

/** Writes the carried files into another folder; with `dtype`, config.json says it. */
export function carryFiles(modelFolder: string, target: string, dtype: WeightDType | undefined): void {
  for (const name of carriedFiles(modelFolder)) {
    const content = readFileSync(join(modelFolder, name))
    const changed = name === CONFIG_FILE && dtype ? withDType(modelFolder, dtype) : content
    writeFileDurably(join(target, name), changed)
  }
}

/**
 * The same model in a folder of its own, whose `finish` may change its small files: weights are the same files on disk (hard
 * links), or copies where the file system has none.
 * @throws EngineError as commitFolder does.
 */
export async function linkModel(
  modelFolder: string,
  target: string,
  finish: (partial: string) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const weights = readdirSync(modelFolder).filter((name) => /\.safetensors(\.index\.json)?$/.test(name))
  await commitFolder(
    target,
    async (partial) => {
      carryFiles(modelFolder, partial, undefined)
      for (const name of weights) await linkOrCopy(realpathSync(join(modelFolder, name)), join(partial, name))
      await finish(partial)
    },
    signal,
  )
}

async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to)
  } catch {
    await copyFile(from, to)
  }
}

/** Reads config.json as far as merging and exporting care. @throws EngineError `not_found` or `invalid`. */
export function readModelConfig(modelFolder: string): Record<string, unknown> {
  const text = readConfigText(modelFolder)
  try {
    return z.record(z.string(), z.unknown()).parse(JSON.parse(text))
  } catch (cause) {
    const message = `${join(modelFolder, CONFIG_FILE)} is not a JSON object`
    throw new EngineError('invalid', 'config_malformed', message, { cause })
  }
}

/** config.json with some members changed and the others as they are written. @throws EngineError as readModelConfig does. */
export function changedConfig(modelFolder: string, changes: Readonly<Record<string, unknown>>): string {
  readModelConfig(modelFolder)
  return changeJson(readConfigText(modelFolder), changes)
}

function readConfigText(modelFolder: string): string {
  const path = join(modelFolder, CONFIG_FILE)
  if (existsSync(path)) return readFileSync(path, 'utf8')
  const message = `${modelFolder} has no ${CONFIG_FILE}; it is no model folder`
  throw new EngineError('not_found', 'config_missing', message)
}

/** config.json with its element type changed, under the key that it has: `dtype` since transformers 5. */
function withDType(modelFolder: string, dtype: WeightDType): string {
  const config = readModelConfig(modelFolder)
  const keys = ['dtype', 'torch_dtype'].filter((key) => key in config)
  const named = keys.length > 0 ? keys : ['torch_dtype']
  return changedConfig(modelFolder, Object.fromEntries(named.map((key) => [key, dtype])))
}
