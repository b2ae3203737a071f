import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { Command } from 'commander'
import { exportRequest } from '../../routes/schemas/artifacts.ts'
import type { TrainingRun } from '../../routes/services.ts'
import type { Application } from '../application.ts'
import { packageRoot } from '../settings.ts'
import { answer } from './chat.ts'
import { readSettings, withApplication } from './support/application.ts'
import { formatBytes, formatSeconds, formatTable } from './support/format.ts'
import { taskPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, shownPath } from './support/terminal.ts'
import { summaryOf, train } from './train.ts'

const EMBEDDED = join(packageRoot, 'data')
const MODEL = 'anneal-tiny'
const IDENTITY = 'anneal_identity'
const QUESTIONS_AND_ANSWERS = 'lighthouse_qa'
const CONVERTED = `${QUESTIONS_AND_ANSWERS}_alpaca`
const QUESTIONS = ['Who are you?', 'When does the library open?']

/** Small enough for two cores, long enough that the answers change for good. */
const CONFIG = {
  model_name_or_path: MODEL,
  dataset: [IDENTITY, CONVERTED],
  stage: 'sft',
  finetuning_type: 'lora',
  lora_rank: 8,
  num_train_epochs: 12,
  per_device_train_batch_size: 8,
  learning_rate: 2e-3,
  lr_scheduler_type: 'cosine',
  warmup_ratio: 0.05,
  logging_steps: 5,
  save_steps: 100,
  plot_loss: true,
}

/** `anneal demo`: the whole path on the embedded model, in a few minutes on two cores. */
export function demoCommand(): Command {
  return new Command('demo')
    .description('Fine-tune the embedded model and show the difference: convert, train, chat, merge, export.')
    .action(async () => {
      const { directories } = await readSettings()
      const datasets = await copyDatasets(directories.saves)
      const models = [...directories.models, join(EMBEDDED, 'models')]
      await withApplication(runDemo, (settings) => ({
        ...settings,
        directories: { ...directories, datasets, models },
      }))
    })
}

/** The demo writes a dataset, so it works on its own copy of the embedded ones; an earlier demo's copy goes on. */
async function copyDatasets(saves: string): Promise<string> {
  const folder = join(saves, 'demo', 'data')
  const isDataset = (path: string) => path === EMBEDDED || /\.jsonl?$/.test(path)
  await cp(EMBEDDED, folder, { recursive: true, force: false, filter: isDataset })
  return folder
}

async function runDemo(application: Application): Promise<void> {
  const start = performance.now()
  heading(1, `Ask the base model ${MODEL}`)
  await ask(application, MODEL)
  heading(2, `Convert the dataset ${QUESTIONS_AND_ANSWERS} (keys query, response)`)
  await convert(application)
  heading(3, `Fine-tune ${MODEL} with LoRA on ${CONFIG.dataset.join(' and ')}`)
  note('   So small a model learns fast; the warning about epochs is meant for larger ones.')
  const finished = await train(application, CONFIG)
  const { run } = finished
  print(summaryOf(finished))
  heading(4, 'Ask the same questions again')
  await ask(application, run.id)
  heading(5, 'Merge the adapter into the model')
  const merge = await mergeRun(application, run)
  heading(6, 'Export the merged model at 16 bits')
  const exported = await exportModel(application, merge)
  print(`\nDone in ${formatSeconds((performance.now() - start) / 1000)}. Go on with:`)
  print(nextCommands(run.id, exported))
}

function heading(step: number, text: string): void {
  print(`\n${step}. ${text}`)
}

/** Greedy and short, so that the answers before and after can be compared. */
async function ask(application: Application, model: string): Promise<void> {
  const { signal } = new AbortController()
  for (const content of QUESTIONS) {
    process.stdout.write(`   ${content}\n   → `)
    const speaker = { model, temperature: 0, maxTokens: 48 }
    await answer(application, speaker, [{ role: 'user', content }], {
      signal,
      write: (text) => process.stdout.write(text.replaceAll(/\s+/g, ' ')),
    })
    print('')
  }
}

/** A demo that ran before has left its converted dataset, which is as good as a new one. */
async function convert({ services }: Application): Promise<void> {
  const before = (await services.datasets.list()).find(({ name }) => name === CONVERTED)
  const rename = { query: 'instruction', response: 'output' }
  const conversion = { name: CONVERTED, rename, formatting: 'alpaca' } as const
  const converted = before ?? (await services.datasets.convert(QUESTIONS_AND_ANSWERS, conversion))
  const { data } = await services.datasets.preview(CONVERTED, {
    offset: 0,
    limit: 1,
    cutoff_len: 2048,
    stage: 'sft',
  })
  print(`   ${CONVERTED}: ${converted.rows} rows${before ? ', already there' : ''}; the first:`)
  print(`   ${JSON.stringify(data[0]?.raw)}`)
}

async function mergeRun(application: Application, run: TrainingRun): Promise<string> {
  const { services, self } = application
  const { id } = await services.merges.create({ model: run.id }, { owner: self })
  const { bytes } = await runJob(application, services.merges, id, taskPoint)
  print(`   ${id}: ${formatBytes(bytes ?? 0)} in ${shownPath(await jobFolder(application, id))}`)
  return id
}

async function exportModel(application: Application, model: string): Promise<string> {
  const { services, self } = application
  const request = exportRequest.parse({ model })
  const { id } = await services.exports.create(request, { owner: self })
  await runJob(application, services.exports, id, taskPoint)
  print(`   ${id} in ${shownPath(await jobFolder(application, id))}`)
  for (const { path, bytes, sha256 } of await services.exports.files(id)) {
    print(`   ${path.padEnd(24)} ${formatBytes(bytes).padStart(8)}  sha256 ${sha256.slice(0, 16)}…`)
  }
  return id
}

/** Temperature 0, as the demo asked: drawn at random, the words of so small a model make no sense. */
function nextCommands(run: string, exported: string): string {
  const messages = [{ role: 'user', content: QUESTIONS[0] }]
  const body = JSON.stringify({ model: run, messages, temperature: 0 })
  return formatTable([
    ['Chat in the terminal', `npx anneal chat ${run} --temperature 0`],
    ['Chat with the export', `npx anneal chat ${exported} --temperature 0`],
    ['Serve over HTTP', 'npx anneal serve'],
    [
      'and ask',
      `curl http://127.0.0.1:8000/v1/chat/completions -H 'content-type: application/json' -d '${body}'`,
    ],
  ])
}
