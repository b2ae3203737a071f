import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { loftqModule } from '../../engine/adapter/loftq.ts'
import { addProduct, mergeAdapter } from '../../engine/adapter/merge.ts'
import {
  type LoraAdapter,
  type LoraModule,
  loraSize,
  type PeftConfig,
  readAdapter,
  writeAdapter,
} from '../../engine/adapter/peft.ts'
import { convertPissa, type PissaOptions, principalModule } from '../../engine/adapter/pissa.ts'
import { targetedPaths } from '../../engine/adapter/targets.ts'
import { readRawConfig } from '../../engine/models/raw-config.ts'
import { stretchedRope } from '../../engine/models/stretch-rope.ts'
import { baseLinearModules, openBase } from '../../engine/quant/source.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import { collectAdapter, loraMethod } from '../../engine/train/lora-method.ts'
import type { Parameter } from '../../engine/train/step.ts'
import { writeFileDurably } from '../../engine/weights/atomic-folder.ts'
import { CONFIG_FILE, changedConfig, linkModel } from '../../engine/weights/model-files.ts'
import type { Adjust, ByteProgress } from '../../engine/weights/model-writer.ts'
import { DERIVED_BASE } from '../models/run-base.ts'
import { adapterConfig, plannedAdapter } from './adapter-config.ts'
import { adapterRoles, type MethodTask, type TrainTask } from './task.ts'

/** Where PiSSA's adapter begins, for its conversion. */
const PISSA_INIT = 'pissa_init'
const PISSA_CONVERTED = 'pissa_converted'
const LOFTQ_INIT = 'loftq_init'
const DERIVATION_FILE = 'derivation.json'

export interface DeriveOptions {
  outputDir: string
  signal?: AbortSignal
  onProgress?: (progress: ByteProgress) => void
}

/**
 * Makes the base that a run trains over, where that isn't the given one, and the adapter that PiSSA or LoftQ begins with.
 * What an earlier start of the same run has made is kept: the same settings give the same bytes.
 *
 * @returns the folder of the base to train over.
 */
export async function deriveBase(task: TrainTask, options: DeriveOptions): Promise<string> {
  const { merged } = adapterRoles(task)
  const { baseFolder } = task.model
  const target = join(options.outputDir, DERIVED_BASE)
  const initFolder = initFolderOf(task, options.outputDir)
  const remove = () => {
    for (const name of [DERIVED_BASE, PISSA_INIT, LOFTQ_INIT]) {
      rmSync(join(options.outputDir, name), { recursive: true, force: true })
    }
  }
  const rope = stretchedBy(task)
  if (merged.length === 0 && !initFolder && !rope) {
    remove()
    return baseFolder
  }
  const planned = plannedAdapter(task)
  const derivation = JSON.stringify({
    baseFolder,
    merged,
    begin: initFolder ? beginSettings(task, planned) : null,
    ...(rope ? { rope } : {}),
  })
  const isMade = existsSync(target) && readDerivation(target) === derivation
  if (isMade && (!initFolder || existsSync(initFolder))) return target
  remove()
  const finish = async (partial: string) => {
    if (rope) writeFileDurably(join(partial, CONFIG_FILE), changedConfig(partial, rope))
    writeFileDurably(join(partial, DERIVATION_FILE), derivation)
  }
  if (merged.length === 0 && !initFolder) {
    await linkModel(baseFolder, target, finish, options.signal)
    return target
  }
  const config = { ...planned, base_model_name_or_path: target }
  const begun: LoraAdapter = { config, modules: new Map(), saved: new Map() }
  await mergeAdapter({
    baseFolder,
    adapterFolder: merged,
    adjust: initFolder ? beginnings(task, planned, begun) : new Map(),
    // What is quantized must come out the same when it is quantized again.
    dtype: task.config.loftq_init ? 'float32' : undefined,
    outputFolder: target,
    signal: options.signal,
    onProgress: options.onProgress,
    finish,
  })
  if (initFolder) writeAdapter(initFolder, begun)
  return target
}

/** What the base's config.json says instead with `rope_scaling`; undefined where nothing changes. @throws EngineError as stretchedRope does. */
export function stretchedBy({
  config,
  model,
}: Pick<TrainTask, 'config'> & { model: { baseFolder: string } }): Record<string, unknown> | undefined {
  const { rope_scaling: stretch, cutoff_len: length } = config
  return stretch && stretchedRope(readRawConfig(model.baseFolder), stretch, length)
}

/** Where the adapter lies that PiSSA or LoftQ begins with; undefined where neither is asked for. */
function initFolderOf({ config }: TrainTask, outputDir: string): string | undefined {
  if (config.pissa_init) return join(outputDir, PISSA_INIT)
  return config.loftq_init ? join(outputDir, LOFTQ_INIT) : undefined
}

/** The adapter that training goes on with: a given one, or the one that PiSSA or LoftQ begins with. */
export function readBegin(task: TrainTask, outputDir: string): LoraAdapter | undefined {
  const folder = adapterRoles(task).resumed ?? initFolderOf(task, outputDir)
  return folder === undefined ? undefined : readAdapter(folder)
}

/** A task whose adapters lie over `baseFolder`, and say so. */
export function overBase(task: TrainTask, baseFolder: string): MethodTask {
  if (baseFolder === task.model.baseFolder) return task
  return {
    ...task,
    model: { ...task.model, baseFolder },
    config: { ...task.config, model_name_or_path: baseFolder },
  }
}

/** Writes what PiSSA has trained as a plain adapter over the original base, too. */
export function writeConverted(task: TrainTask, parameters: readonly Parameter[], outputDir: string): void {
  const lora = parameters.filter(({ name }) => !name.startsWith('v_head.'))
  const trained = collectAdapter(adapterConfig(task, lora), lora)
  writeAdapter(
    join(outputDir, PISSA_CONVERTED),
    convertPissa(trained, readAdapter(join(outputDir, PISSA_INIT))),
  )
}

/** What the beginning depends on. */
function beginSettings({ config }: TrainTask, planned: PeftConfig) {
  const { pissa_init, pissa_iter, loftq_iter, quantization_bit, quantization_type, seed } = config
  return { pissa_init, pissa_iter, loftq_iter, quantization_bit, quantization_type, seed, planned }
}

function readDerivation(folder: string): string | undefined {
  const path = join(folder, DERIVATION_FILE)
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined
}

/** Parts each targeted matrix into the base that stays and the adapter that `begun` gets. */
function beginnings(task: TrainTask, planned: PeftConfig, begun: LoraAdapter): Map<string, Adjust> {
  const base = openBase(task.model.baseFolder)
  const linears = baseLinearModules(base)
  base.weights.close()
  const method = loraMethod(planned)
  const targeted = targetedPaths(linears, method.targets, method.layers)
  const adjust = new Map<string, Adjust>()
  for (const [index, { path, outFeatures, inFeatures }] of linears.entries()) {
    if (!targeted.has(path) || method.saves?.(`${path}.weight`)) continue
    const { pissa_iter: iterations, seed } = task.config
    const options = { ...loraSize(planned, path), iterations, seed: seed + index, dora: planned.use_dora }
    adjust.set(`${path}.weight`, (values) => {
      begun.modules.set(path, begin(values, [outFeatures, inFeatures], options, task.config))
    })
  }
  return adjust
}

/** Changes `values` into the base that stays; returns the adapter. */
function begin(
  values: Float32Array,
  shape: readonly [number, number],
  options: PissaOptions,
  config: TrainConfig,
): LoraModule {
  if (config.loftq_init) {
    const scheme = config.quantization_bit === 8 ? 'int8' : config.quantization_type
    const { quantized, module } = loftqModule(values, shape, {
      ...options,
      scheme,
      rounds: config.loftq_iter,
    })
    values.set(quantized)
    return module
  }
  const module = principalModule(values, shape, options)
  addProduct(values, { ...module, scale: -module.scale })
  return module
}
