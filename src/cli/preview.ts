import { Command } from 'commander'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import type { TrainingPreview } from '../../routes/services.ts'
import type { Application } from '../application.ts'
import { previewRows } from '../datasets/preview.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { planRun } from '../training/plan-run.ts'
import type { TrainTask } from '../training/task.ts'
import { withApplication } from './support/application.ts'
import { formatBytes, formatCount, formatTable } from './support/format.ts'
import { renderTokens } from './support/render-tokens.ts'
import { print, printJson } from './support/terminal.ts'
import { CONFIG_ARGUMENT, readTrainInput } from './support/train-input.ts'

/** Examples shown of each dataset. */
const SHOWN_EXAMPLES = 2

/** `anneal preview`: what a training run would do, found without doing it. */
export function previewCommand(): Command {
  return new Command('preview')
    .description('Show what a training run would do: steps, tokens, memory, configuration, examples.')
    .argument('<config...>', CONFIG_ARGUMENT)
    .option('--json', 'print it as JSON')
    .addHelpText('after', '\nExample:\n  anneal preview my-run.yaml lora_rank=16')
    .action(async (words: string[], { json }: { json?: boolean }) => {
      const input = await readTrainInput(words)
      await withApplication((application) => showPreview(application, input, json))
    })
}

/** Prints the preview of a run on stdout. */
export async function showPreview(
  application: Application,
  input: Record<string, unknown>,
  json = false,
): Promise<void> {
  const preview = await application.services.training.preview(input, { trusted: true })
  if (json) return printJson(preview)
  print(summaryOf(preview))
  for (const { message } of preview.warnings) print(`Warning: ${message}`)
  print(`\nThe same run as a command:\n${preview.command}`)
  print(`\nThe same run as a file:\n${preview.yaml.trimEnd()}`)
  const { task } = await planRun(application, input, true)
  for (const name of task.config.dataset) await showExamples(task.datasetDir, name, task)
}

function summaryOf(preview: TrainingPreview): string {
  const { memory, trainable_parameters: trainable, total_parameters: total } = preview
  const share = `${((100 * trainable) / Math.max(1, total)).toFixed(2)} %`
  const fits = memory.fits ? 'it fits' : 'it does NOT fit'
  return formatTable([
    ['Model', `${preview.model}, ${formatCount(total)} parameters`],
    ['Learns', `${formatCount(trainable)} parameters (${share})`],
    [
      'Examples',
      `${formatCount(preview.train_examples)} to learn, ${formatCount(preview.eval_examples)} held out`,
    ],
    ['Cut', `${formatCount(preview.truncated_examples)} examples at cutoff_len ${preview.config.cutoff_len}`],
    [
      'Tokens',
      `${formatCount(preview.tokens_per_epoch)} an epoch, ${formatCount(preview.trained_tokens_per_epoch)} of them learned`,
    ],
    ['Steps', `${formatCount(preview.total_steps)}, ${formatCount(preview.steps_per_epoch)} an epoch`],
    [
      'Memory',
      `${formatBytes(memory.required_bytes)} needed, ${formatBytes(memory.available_bytes)} available: ${fits}`,
    ],
  ])
}

async function showExamples(datasetDir: string, name: string, { model, config }: TrainTask): Promise<void> {
  const source = await new DatasetRegistry({ directories: [datasetDir] }).get(name)
  const rows = await previewRows(source, {
    offset: 0,
    limit: SHOWN_EXAMPLES,
    stage: config.stage,
    tokenizer: loadTokenizer(model.baseFolder),
    template: config.template,
    cutoffLength: config.cutoff_len,
    trainOnPrompt: config.train_on_prompt,
    maskHistory: config.mask_history,
  })
  print(`\nFirst examples of ${name}, the learned tokens marked:`)
  for (const { index, tokens, rejectedTokens, error } of rows) {
    const shown = tokens ? renderTokens(tokens, process.stdout.isTTY) : `cannot be used: ${error}`
    print(`[${index}]${rejectedTokens ? ' chosen:' : ''} ${shown.trimEnd()}`)
    if (rejectedTokens) {
      print(`[${index}] rejected: ${renderTokens(rejectedTokens, process.stdout.isTTY).trimEnd()}`)
    }
  }
}
