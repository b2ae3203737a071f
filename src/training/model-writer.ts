import { readdirSync, renameSync, rmdirSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeAdapter } from '../../engine/adapter/peft.ts'
import { collectAdapter } from '../../engine/train/lora-method.ts'
import type { Parameter, TrainStep } from '../../engine/train/step.ts'
import { encodeFloat32 } from '../../engine/weights/dtypes.ts'
import { carriedFiles } from '../../engine/weights/model-files.ts'
import { type Adjust, writeModel } from '../../engine/weights/model-writer.ts'
import { writeSafetensors } from '../../engine/weights/safetensors.ts'
import { adapterConfig } from './adapter-config.ts'
import type { MethodTask } from './task.ts'

const VALUE_HEAD_FILE = 'value_head.safetensors'
/** Files of a base folder that describe its weights; an adapter has its own. */
const OF_THE_WEIGHTS = ['config.json', 'generation_config.json']

/** Returns what writes a run's model as it is at that moment into an existing folder: a PEFT adapter, or all weights. */
export function createModelWriter(task: MethodTask, step: TrainStep): (folder: string) => Promise<void> {
  const { baseFolder } = task.model
  const head = step.parameters.filter(({ name }) => name.startsWith('v_head.'))
  const parameters = step.parameters.filter((parameter) => !head.includes(parameter))
  if (task.config.finetuning_type !== 'lora') {
    return async (folder) => {
      writeValueHead(folder, head)
      await writeWeights(folder, parameters, baseFolder)
    }
  }
  return async (folder) => {
    writeValueHead(folder, head)
    writeAdapter(folder, collectAdapter(adapterConfig(task, parameters), parameters))
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

/** LLaMA-Factory's file of a reward model's head, with TRL's names. */
function writeValueHead(folder: string, head: readonly Parameter[]): void {
  if (head.length === 0) return
  const tensors = head.map(({ name, shape, data }) => {
    return { name, dtype: 'F32' as const, shape, data: encodeFloat32(data, 'float32') }
  })
  writeSafetensors(join(folder, VALUE_HEAD_FILE), tensors)
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
