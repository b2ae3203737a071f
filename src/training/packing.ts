import { randomBytes } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { WeightScheme } from '../../engine/packed/layout.ts'
import { packBase } from '../../engine/quant/packed-base.ts'
import { type BaseModel, openBase } from '../../engine/quant/source.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import { sweepPartialFolders } from '../../engine/weights/atomic-folder.ts'

/**
 * How a run holds the base's linear layers; undefined where they stay as they are.
 * @throws EngineError `invalid` for full training over a packed base, or bits that it doesn't have.
 */
export function weightScheme(
  config: TrainConfig,
  { quantization, folder }: BaseModel,
): WeightScheme | undefined {
  const bits = config.quantization_bit
  if (!quantization) {
    if (bits === undefined) return undefined
    return bits === 8 ? 'int8' : config.quantization_type
  }
  const what = `${folder} is quantized already (${quantization.method}, ${quantization.bits} bits)`
  if (config.finetuning_type !== 'lora') {
    const message = `${what}: only an adapter can be trained over it. Set finetuning_type to lora.`
    throw new EngineError('invalid', 'base_is_quantized', message, { param: 'finetuning_type' })
  }
  if (bits !== undefined && bits !== quantization.bits) {
    const message = `${what}, so quantization_bit ${bits} cannot be had. Leave the field out.`
    throw new EngineError('invalid', 'base_is_quantized', message, { param: 'quantization_bit' })
  }
  return quantization.bits === 4 ? 'int4' : 'int8'
}

/** The base as a run trains over it, and what to call when it is done with it. */
export interface TrainingBase {
  readonly base: BaseModel
  close(): void
}

/**
 * Opens the base; where its layers are to be packed, a packed copy is written into the run's folder, under a name that
 * start-up sweeps when this process has died.
 */
export async function openTrainingBase(
  folder: string,
  config: TrainConfig,
  run: { outputDir: string; signal: AbortSignal; onProgress: (done: number, total: number) => void },
): Promise<TrainingBase> {
  const source = openBase(folder)
  try {
    const scheme = weightScheme(config, source)
    if (!scheme) return { base: source, close: () => source.weights.close() }
    sweepPartialFolders(run.outputDir)
    const packed = join(run.outputDir, `.base.partial-${process.pid}-${randomBytes(4).toString('hex')}`)
    const remove = () => rmSync(packed, { recursive: true, force: true })
    try {
      const base = await packBase(source, { ...run, scheme, folder: packed })
      source.weights.close()
      const close = () => {
        base.weights.close()
        remove()
      }
      return { base, close }
    } catch (error) {
      remove()
      throw error
    }
  } catch (error) {
    source.weights.close()
    throw error
  }
}
