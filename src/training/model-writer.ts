import { readdirSync, renameSync, rmdirSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { collectAdapter } from '../../engine/adapter/method.ts'
import { writeAdapter } from '../../engine/adapter/peft.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import type { Parameter, TrainStep } from '../../engine/train/step.ts'
import { carriedFiles } from '../../engine/weights/model-files.ts'
import { type Adjust, writeModel } from '../../engine/weights/model-writer.ts'
import { adapterConfig } from './adapter-config.ts'

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
    writeAdapter(folder, collectAdapter(adapterConfig(config, step.parameters), step.parameters))
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
