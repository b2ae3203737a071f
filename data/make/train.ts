import { copyFileSync, cpSync, existsSync, rmSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseTrainConfig } from '../../engine/train/config.ts'
import { LOSS_PICTURE_FILE } from '../../engine/train/run-folder.ts'
import { writeModel } from '../../engine/weights/model-writer.ts'
import { trainTask } from '../../src/tasks/train.ts'
import type { TrainTask } from '../../src/training/task.ts'
import { CHAT_BATCH } from './chats.ts'
import { SEED } from './generate.ts'
import { MAX_POSITIONS } from './model.ts'
import { prepare } from './prepare.ts'

/** What both stages share; the fields are those of `anneal train`. */
const SHARED = {
  finetuning_type: 'full',
  num_train_epochs: 1,
  lr_scheduler_type: 'cosine',
  warmup_ratio: 0.03,
  logging_steps: 10,
  save_steps: 100,
  save_total_limit: 1,
  seed: SEED,
}
const PRETRAINING = {
  stage: 'pt',
  dataset: 'world_text',
  cutoff_len: 256,
  per_device_train_batch_size: 8,
  learning_rate: 3e-3,
}
/** The conversations are visited in the order of the file, which keeps those of one length together. */
const CHATTING = {
  stage: 'sft',
  dataset: 'world_chat',
  cutoff_len: MAX_POSITIONS,
  per_device_train_batch_size: CHAT_BATCH,
  disable_shuffling: true,
  learning_rate: 1.5e-3,
}

/**
 * Prepares, trains both stages, and writes the model in bfloat16 and the loss pictures into `target`, beside its model
 * card. Goes on where an earlier call was interrupted.
 */
export async function make(work: string, target: string): Promise<void> {
  const [untrained, pretrained, chatting] = ['untrained', 'pt', 'sft'].map((name) => join(work, name)) as [
    string,
    string,
    string,
  ]
  if (!existsSync(join(untrained, 'model.safetensors'))) prepare(work)
  await train(PRETRAINING, untrained, pretrained, join(work, 'data'))
  await train(CHATTING, pretrained, chatting, join(work, 'data'))
  const finished = join(work, 'model')
  rmSync(finished, { recursive: true, force: true })
  await writeModel({ modelFolder: chatting, outputFolder: finished, dtype: 'bfloat16' })
  // The run's generated card stays behind: the folder has its own.
  cpSync(finished, target, { recursive: true, filter: (path) => basename(path) !== 'README.md' })
  copyFileSync(join(pretrained, LOSS_PICTURE_FILE), join(target, 'training_loss_pt.png'))
  copyFileSync(join(chatting, LOSS_PICTURE_FILE), join(target, 'training_loss_sft.png'))
}

/** One run as `anneal train` does it, in this process. */
async function train(
  fields: Record<string, unknown>,
  baseFolder: string,
  outputDir: string,
  datasetDir: string,
): Promise<void> {
  if (existsSync(join(outputDir, 'model.safetensors'))) return
  const config = parseTrainConfig({ ...SHARED, ...fields, model_name_or_path: baseFolder })
  const resolved: TrainTask = {
    model: { id: 'anneal-tiny', baseFolder, root: baseFolder },
    config,
    datasetDir,
  }
  await trainTask({
    job: { id: `run-${config.stage}`, kind: 'train', resolved: { ...resolved }, outputDir, attempt: 1 },
    signal: new AbortController().signal,
    report: () => {},
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [work = 'saves/anneal-tiny', target = 'data/models/anneal-tiny'] = process.argv.slice(2)
  await make(resolve(work), resolve(target))
}
