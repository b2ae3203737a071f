import { readdirSync, renameSync, rmdirSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type LoraModule, peftConfig, writeAdapter } from '../../engine/adapter/peft.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import type { Parameter, TrainStep } from '../../engine/train/step.ts'
import { carriedFiles } from '../../engine/weights/model-files.ts'
import { type Adjust, writeModel } from '../../engine/weights/model-writer.ts'

/** Files of a base folder that describe its weights; an adapter has its own. */
const OF_THE_WEIGHTS = ['config.json', 'generation_config.json']

/** Returns what writes a run's model as it is at that moment into an existing folder: a PEFT adapter, or all weights. */
export function createModelWriter(
  config: TrainConfig,
  step: TrainStep,
  baseFolder: string,
): (folder: string) => Promise<void> {
  if (config.finetuning_type === 'full') return (folder) => writeWeights(folder, step.parameters, baseFolder)
  return async (folder) => {
    writeAdapter(folder, {
      config: adapterConfig(config, step.parameters),
      modules: modulesOf(step.parameters),
    })
    for (const name of carriedFiles(baseFolder)) {
      if (
        /^(tokenizer|special_tokens|added_tokens|chat_template|vocab|merges)/.test(name) &&
        !OF_THE_WEIGHTS.includes(name)
      ) {
        await copyFile(join(baseFolder, name), join(folder, name))
      }
    }
  }
}

const LORA_NAME = /^base_model\.model\.(.+)\.lora_([AB])\.weight$/

function modulesOf(parameters: readonly Parameter[]): Map<string, LoraModule> {
  const modules = new Map<string, Partial<LoraModule>>()
  for (const { name, shape, data } of parameters) {
    const [, path = name, matrix] = LORA_NAME.exec(name) ?? []
    const size: [number, number] = [shape[0]!, shape[1]!]
    const half = matrix === 'A' ? { a: data, aShape: size } : { b: data, bShape: size }
    modules.set(path, { ...modules.get(path), ...half })
  }
  return modules as Map<string, LoraModule>
}

function adapterConfig(config: TrainConfig, parameters: readonly Parameter[]) {
  const trained = [...modulesOf(parameters).keys()].map((path) => path.split('.').at(-1)!)
  return peftConfig({
    r: config.lora_rank,
    lora_alpha: config.lora_alpha,
    lora_dropout: config.lora_dropout,
    use_rslora: config.use_rslora,
    target_modules: config.lora_target === 'all' ? [...new Set(trained)].sort() : config.lora_target,
    base_model_name_or_path: config.model_name_or_path,
  })
}

/** All weights in the base's layout and dtypes. They are written beside and moved in, since the folder has other files. */
async function writeWeights(
  folder: string,
  parameters: readonly Parameter[],
  baseFolder: string,
): Promise<void> {
  const adjust = new Map<string, Adjust>(
    parameters.map(({ name, data }) => [name, (values) => values.set(data)]),
  )
  const whole = join(folder, '.model')
  await writeModel({ modelFolder: baseFolder, outputFolder: whole, adjust })
  for (const name of readdirSync(whole)) renameSync(join(whole, name), join(folder, name))
  rmdirSync(whole)
}
