/**
 * A training run of the embedded model in a process that may be killed at any moment: goes on from what an earlier one
 * left in the folder, as a restarted job does. Says on stdout which step is done and which checkpoint is being written.
 */
import { join } from 'node:path'
import { openModel } from '../../../engine/models/index.ts'
import { createRandom } from '../../../engine/random.ts'
import { loadTokenizer } from '../../../engine/text/tokenizer.ts'
import { parseTrainConfig } from '../../../engine/train/config.ts'
import { train } from '../../../engine/train/loop.ts'
import { objectiveOf } from '../../../engine/train/objectives/index.ts'
import { planOutput, prepareOutput } from '../../../engine/train/output-dir.ts'
import { createRunFolder } from '../../../engine/train/run-folder.ts'
import { buildStep } from '../../../src/training/build-step.ts'
import { createModelWriter } from '../../../src/training/model-writer.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

const outputDir = process.argv[2]!

const config = parseTrainConfig({
  model: 'anneal-tiny',
  dataset: 'random',
  max_steps: 8,
  save_steps: 1,
  save_total_limit: 2,
  logging_steps: 1,
  eval_steps: 3,
  val_size: 2,
  load_best_model_at_end: true,
  learning_rate: 5e-3,
  per_device_train_batch_size: 2,
  gradient_accumulation_steps: 2,
  lora_rank: 4,
  lora_dropout: 0.1,
})

function randomExamples(count: number, seed: number) {
  const random = createRandom(seed)
  return Array.from({ length: count }, () => {
    const inputIds = Int32Array.from({ length: 8 + random.nextInt(8) }, () => 1 + random.nextInt(200))
    return { inputIds, labels: inputIds.slice() }
  })
}

const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`)

const plan = planOutput(outputDir, config, true)
prepareOutput(outputDir, plan)
const model = openModel(ANNEAL_TINY)
const examples = randomExamples(20, 5)
const task = { config, model: { baseFolder: ANNEAL_TINY } }
const step = await buildStep(
  model,
  task,
  { objective: objectiveOf(config), checkpointing: false, lossChunks: 1 },
  examples,
)
const write = createModelWriter(task, step)
let done = 0
const writeModel = async (folder: string) => {
  say({ writing: folder === outputDir ? 'final' : done })
  await write(folder)
}
const record = createRunFolder({ outputDir, config, writeModel })
const events = train({
  config,
  step,
  examples,
  evaluationSets: [{ examples: randomExamples(2, 6) }],
  padId: loadTokenizer(ANNEAL_TINY).padTokenId,
  outputDir: join(outputDir),
  allParameters: 1,
  writeModel,
  resumeFrom: plan.action === 'resume' ? plan.checkpoint : undefined,
})
for await (const event of events) {
  if (event.type === 'step') {
    done = event.step
    say({ step: done })
  }
  await record(event)
}
