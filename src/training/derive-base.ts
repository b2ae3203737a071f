import { existsSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { addProduct, mergeAdapter } from '../../engine/adapter/merge.ts'
import { collectAdapter, loraMethod } from '../../engine/adapter/method.ts'
import {
  type LoraAdapter,
  loraSize,
  type PeftConfig,
  readAdapter,
  writeAdapter,
} from '../../engine/adapter/peft.ts'
import { convertPissa, principalModule } from '../../engine/adapter/pissa.ts'
import { targetedPaths } from '../../engine/adapter/targets.ts'
import { baseLinearModules, openBase } from '../../engine/quant/source.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import type { Parameter } from '../../engine/train/step.ts'
import { writeFileDurably } from '../../engine/weights/atomic-folder.ts'
import type { Adjust, ByteProgress } from '../../engine/weights/model-writer.ts'
import { DERIVED_BASE } from '../models/run-base.ts'
import { adapterConfig, plannedAdapter } from './adapter-config.ts'
import { adapterRoles, type MethodTask, type TrainTask } from './task.ts'

/** Where PiSSA's adapter begins, for its conversion. */
export const PISSA_INIT = 'pissa_init'
const PISSA_CONVERTED = 'pissa_converted'
const DERIVATION_FILE = 'derivation.json'

export interface DeriveOptions {
  outputDir: string
  signal?: AbortSignal
  onProgress?: (progress: ByteProgress) => void
}

/**
 * Makes the base that a run trains over, where that isn't the given one, and PiSSA's first adapter. What an earlier start
 * of the same run has made is kept: the same settings give the same bytes.
 *
 * @returns the folder of the base to train over.
 */
export async function deriveBase(task: TrainTask, options: DeriveOptions): Promise<string> {
  const { merged } = adapterRoles(task)
  const { baseFolder } = task.model
  const target = join(options.outputDir, DERIVED_BASE)
  const initFolder = join(options.outputDir, PISSA_INIT)
  if (merged.length === 0 && !task.config.pissa_init) {
    for (const folder of [target, initFolder]) rmSync(folder, { recursive: true, force: true })
    return baseFolder
  }
  const planned = plannedAdapter(task)
  const derivation = JSON.stringify({ baseFolder, merged, pissa: pissaSettings(task.config, planned) })
  const isMade = existsSync(target) && readDerivation(target) === derivation
  if (isMade && (!task.config.pissa_init || existsSync(initFolder))) return target
  for (const folder of [target, initFolder]) rmSync(folder, { recursive: true, force: true })
  const begun: LoraAdapter = {
    config: { ...planned, base_model_name_or_path: target },
    modules: new Map(),
    saved: new Map(),
  }
  await mergeAdapter({
    baseFolder,
    adapterFolder: merged,
    adjust: task.config.pissa_init ? principalParts(task, planned, begun) : new Map(),
    outputFolder: target,
    signal: options.signal,
    onProgress: options.onProgress,
    finish: async (partial) => writeFileDurably(join(partial, DERIVATION_FILE), derivation),
  })
  if (task.config.pissa_init) writeAdapter(initFolder, begun)
  return target
}

/** The adapter that training goes on with: a given one, or PiSSA's. */
export function readBegin(task: TrainTask, outputDir: string): LoraAdapter | undefined {
  const { resumed } = adapterRoles(task)
  if (resumed !== undefined) return readAdapter(resumed)
  return task.config.pissa_init ? readAdapter(join(outputDir, PISSA_INIT)) : undefined
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

function pissaSettings({ pissa_init, pissa_iter, seed }: TrainConfig, planned: PeftConfig) {
  return pissa_init ? { pissa_iter, seed, planned } : null
}

function readDerivation(folder: string): string | undefined {
  const path = join(folder, DERIVATION_FILE)
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined
}

/** Moves the principal part of each targeted matrix out of the base and into `begun`. */
function principalParts(task: TrainTask, planned: PeftConfig, begun: LoraAdapter): Map<string, Adjust> {
  const { config, model } = task
  const base = openBase(model.baseFolder)
  const linears = baseLinearModules(base)
  base.weights.close()
  const method = loraMethod(planned)
  const targeted = targetedPaths(linears, method.targets, method.layers)
  const adjust = new Map<string, Adjust>()
  for (const [index, { path, outFeatures, inFeatures }] of linears.entries()) {
    if (!targeted.has(path) || method.saves?.(`${path}.weight`)) continue
    adjust.set(`${path}.weight`, (values) => {
      const module = principalModule(values, [outFeatures, inFeatures], {
        ...loraSize(planned, path),
        iterations: config.pissa_iter,
        seed: config.seed + index,
        dora: planned.use_dora,
      })
      addProduct(values, { ...module, scale: -module.scale })
      begun.modules.set(path, module)
    })
  }
  return adjust
}
