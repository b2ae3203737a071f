import { writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import { evaluationRequest } from '../../routes/schemas/evaluations.ts'
import { comparisonTable } from '../evaluation/table.ts'
import { withApplication } from './support/application.ts'
import { UsageError } from './support/failure.ts'
import { readModelTarget } from './support/model-target.ts'
import { taskPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface EvalOptions {
  json?: boolean
  output?: string
  [field: string]: unknown
}

/** Options whose values are numbers, by their field of the request. */
const NUMBERS = {
  cutoffLen: 'cutoff_len',
  maxSamples: 'max_samples',
  maxNewTokens: 'max_new_tokens',
  temperature: 'temperature',
  topP: 'top_p',
  topK: 'top_k',
  seed: 'seed',
  nShot: 'n_shot',
} as const

/** `anneal eval`: models on a dataset or a multiple-choice task, side by side. */
export function evalCommand(): Command {
  return new Command('eval')
    .description('Evaluate models: loss, perplexity, accuracy, BLEU-4 and ROUGE, or multiple choice.')
    .argument('<models...>', 'ids of models, or the folder of one')
    .option('--dataset <name>', 'a dataset of dataset_info.json, or several with commas between them')
    .option(
      '--task <name>',
      'multiple choice: mmlu_test reads evaluation/mmlu/test/*.csv of the datasets folder',
    )
    .option('--stage <name>', 'sft, or pt for raw text', 'sft')
    .option('--no-generate', 'loss, perplexity and accuracy alone')
    .option('--template <name>', "a chat template in place of the model's own")
    .option('--cutoff-len <tokens>', 'longest example')
    .option('--max-samples <rows>', 'only the first rows')
    .option('--max-new-tokens <tokens>', 'longest generated answer')
    .option('--do-sample', 'sample answers instead of taking the likeliest tokens')
    .option('--temperature <number>', 'with --do-sample')
    .option('--top-p <number>', 'with --do-sample')
    .option('--top-k <number>', 'with --do-sample')
    .option('--seed <number>', 'of sampling and of the choice of rows')
    .option('--n-shot <number>', 'examples before each question of a task')
    .option('--lang <code>', "language of a task's prompts, en or zh")
    .option('--output <file>', 'also write the table here, as Markdown')
    .option('--json', 'print the finished evaluation as JSON')
    .addHelpText('after', '\nExample:\n  anneal eval anneal-tiny run-3f9a1c07b2de --dataset anneal_identity')
    .action(evaluate)
}

async function evaluate(words: string[], options: EvalOptions): Promise<void> {
  const targets = words.map(readModelTarget)
  const request = readRequest(
    targets.map(({ id }) => id),
    options,
  )
  const widen: (typeof targets)[number]['widen'] = (settings) =>
    targets.reduce((widened, target) => target.widen(widened), settings)
  await withApplication(async (application) => {
    const { services, self } = application
    const { id, models } = await services.evaluations.create(request, { owner: self, trusted: true })
    note(`${id}: evaluating ${models.join(', ')} on ${request.dataset ?? request.task}`)
    const done = await runJob(application, services.evaluations, id, taskPoint)
    const table = comparisonTable(done.results)
    if (options.output) await writeFile(options.output, table)
    if (options.json) return printJson(done)
    print(table)
    print(`Rows and results: ${shownPath(await jobFolder(application, id))}`)
  }, widen)
}

function readRequest(model: string[], options: EvalOptions) {
  const numbers = Object.entries(NUMBERS)
    .filter(([option]) => options[option] !== undefined)
    .map(([option, field]) => [field, Number(options[option])])
  const { dataset, task, stage, template, lang, doSample } = options
  const parsed = evaluationRequest.safeParse({
    model,
    dataset,
    task,
    stage,
    template,
    lang,
    do_sample: doSample,
    predict_with_generate: options.generate === false ? false : undefined,
    ...Object.fromEntries(numbers),
  })
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new UsageError(`--${String(issue?.path[0]).replaceAll('_', '-')}: ${issue?.message}`)
}
