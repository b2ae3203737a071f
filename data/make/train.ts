import { appendFileSync, copyFileSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type OpenModel, openModel } from '../../engine/models/index.ts'
import { resolveChatTemplate } from '../../engine/text/chat-template.ts'
import type { Conversation, EncodedExample } from '../../engine/text/conversation.ts'
import { encodeConversation } from '../../engine/text/encode.ts'
import { packText } from '../../engine/text/packing.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { latestCheckpoint } from '../../engine/train/checkpoint.ts'
import { CompiledStep } from '../../engine/train/compiled-step.ts'
import { parseTrainConfig, type TrainConfig } from '../../engine/train/config.ts'
import { train } from '../../engine/train/loop.ts'
import type { Parameter } from '../../engine/train/step.ts'
import { encodeFloat32 } from '../../engine/weights/dtypes.ts'
import { writeSafetensors } from '../../engine/weights/safetensors.ts'
import { loadDataset } from '../../src/datasets/load.ts'
import { DatasetRegistry } from '../../src/datasets/registry.ts'
import { CHAT_BATCH } from './chats.ts'
import { SEED } from './generate.ts'
import { MAX_POSITIONS } from './model.ts'
import { prepare } from './prepare.ts'

const MODEL_FILES = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
]
const THREADS = Number(process.env.ANNEAL_THREADS ?? 2)

/** Prepares, trains both stages and writes the model; goes on from the last checkpoint where one was interrupted. */
async function main(work: string, target: string): Promise<void> {
  if (!existsSync(join(work, 'untrained', 'model.safetensors'))) prepare(work)
  const shared = {
    finetuning_type: 'full',
    dataset_dir: join(work, 'data'),
    lr_scheduler_type: 'cosine',
    warmup_ratio: 0.03,
    num_train_epochs: 1,
    logging_steps: 10,
    save_steps: 100,
    save_total_limit: 1,
    seed: SEED,
  }
  await stage({
    ...shared,
    stage: 'pt',
    model_name_or_path: join(work, 'untrained'),
    dataset: 'world_text',
    cutoff_len: 256,
    per_device_train_batch_size: 8,
    learning_rate: 2e-3,
    output_dir: join(work, 'pt'),
  })
  await stage({
    ...shared,
    stage: 'sft',
    model_name_or_path: join(work, 'pt'),
    dataset: 'world_chat',
    cutoff_len: MAX_POSITIONS,
    per_device_train_batch_size: CHAT_BATCH,
    disable_shuffling: true,
    learning_rate: 1e-3,
    output_dir: join(work, 'sft'),
  })
  const trained = openModel(join(work, 'sft'))
  writeModel(trained, target, trainedWeights(trained), 'bfloat16')
}

/** One run of full fine-tuning; its output_dir becomes a model folder in float32. */
async function stage(fields: Record<string, unknown>): Promise<void> {
  const config = parseTrainConfig(fields)
  const outputDir = config.output_dir!
  if (existsSync(join(outputDir, 'model.safetensors'))) return
  const model = openModel(config.model_name_or_path)
  const tokenizer = loadTokenizer(model.folder)
  const examples = await encode(config, model)
  const step = await CompiledStep.create(model, {
    method: { kind: 'full' },
    maxLength: config.cutoff_len,
    initialize: (name) => model.weights.readFloat32(name),
    session: { threads: THREADS },
  })
  mkdirSync(outputDir, { recursive: true })
  const write = (folder: string) => writeModel(model, folder, step.parameters, 'float32')
  const resumeFrom = latestCheckpoint(outputDir)
  const events = train({
    config,
    step,
    examples,
    padId: tokenizer.padTokenId,
    outputDir,
    allParameters: step.parameters.reduce((sum, { data }) => sum + data.length, 0),
    writeModel: write,
    ...(resumeFrom === undefined ? {} : { resumeFrom }),
  })
  for await (const event of events) {
    if (event.type !== 'log') continue
    const { step: current_steps, totalSteps: total_steps, loss, learningRate: lr, tokensPerSecond } = event
    const entry = { current_steps, total_steps, loss, lr, elapsed: event.elapsedSeconds, tokensPerSecond }
    appendFileSync(join(outputDir, 'trainer_log.jsonl'), `${JSON.stringify(entry)}\n`)
    console.log(
      `${config.stage} ${current_steps}/${total_steps} loss ${loss.toFixed(4)} ${Math.round(tokensPerSecond)} tokens/s`,
    )
  }
  await step.release()
  write(outputDir)
}

async function encode(config: TrainConfig, model: OpenModel): Promise<EncodedExample[]> {
  const tokenizer = loadTokenizer(model.folder)
  const registry = new DatasetRegistry({ directories: [config.dataset_dir!] })
  const { conversations } = await loadDataset(registry, config.dataset, { stage: config.stage })
  if (config.packing)
    return packText(conversations.map(textOf), tokenizer, { cutoffLength: config.cutoff_len })
  const options = { template: resolveChatTemplate(tokenizer), cutoffLength: config.cutoff_len }
  return conversations.map((conversation) => encodeConversation(conversation, tokenizer, options))
}

function textOf(conversation: Conversation): string {
  if (conversation.kind !== 'text') throw new TypeError('stage pt reads plain text')
  return conversation.text
}

function trainedWeights(model: OpenModel): Parameter[] {
  return [...model.weights.entries.values()].map(({ name, shape }) => {
    return { name, shape, data: model.weights.readFloat32(name) }
  })
}

function writeModel(
  source: OpenModel,
  folder: string,
  parameters: readonly Parameter[],
  dtype: 'float32' | 'bfloat16',
): void {
  mkdirSync(folder, { recursive: true })
  for (const name of MODEL_FILES) copyFileSync(join(source.folder, name), join(folder, name))
  const tensors = parameters.map(({ name, shape, data }) => {
    return {
      name,
      shape,
      dtype: dtype === 'float32' ? ('F32' as const) : ('BF16' as const),
      data: encodeFloat32(data, dtype),
    }
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [work = 'saves/anneal-tiny', target = 'data/models/anneal-tiny'] = process.argv.slice(2)
  if (process.argv.includes('--fresh')) rmSync(work, { recursive: true, force: true })
  await main(work, target)
}
