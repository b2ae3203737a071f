import { Command } from 'commander'
import type { TrainingPreview } from '../../routes/services.ts'
import type { Application } from '../application.ts'
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
  for (const name of preview.config.dataset as string[]) await showExamples(application, name, preview)
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

async function showExamples(
  { services }: Application,
  name: string,
  { model, config }: TrainingPreview,
): Promise<void> {
  const { data } = await services.datasets.preview(name, {
    offset: 0,
    limit: SHOWN_EXAMPLES,
    model,
    cutoff_len: Number(config.cutoff_len),
    train_on_prompt: config.train_on_prompt === true,
    mask_history: config.mask_history === true,
    stage: config.stage === 'pt' ? 'pt' : 'sft',
  })
  print(`\nFirst examples of ${name}, the learned tokens marked:`)
  for (const { index, tokens, error } of data) {
    const shown = tokens ? renderTokens(tokens, process.stdout.isTTY) : `cannot be used: ${error}`
    print(`[${index}] ${shown.trimEnd()}`)
  }
}
