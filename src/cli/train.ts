import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { latestCheckpoint } from '../../engine/train/checkpoint.ts'
import { type TrainConfig, toCommand } from '../../engine/train/config.ts'
import type { TrainingRun } from '../../routes/services.ts'
import type { Application } from '../application.ts'
import { showPreview } from './preview.ts'
import { withApplication } from './support/application.ts'
import { formatSeconds, formatTable } from './support/format.ts'
import { trainingPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'
import { CONFIG_ARGUMENT, readRepeated, readTrainInput } from './support/train-input.ts'

interface TrainOptions {
  from?: string
  preview?: boolean
  json?: boolean
}

/** `anneal train`: one training run in this terminal, from LLaMA-Factory's fields. */
export function trainCommand(): Command {
  return new Command('train')
    .description('Fine-tune a model. Ctrl-C stops with a checkpoint; the same output_dir goes on from there.')
    .argument('[config...]', CONFIG_ARGUMENT)
    .option('--from <file>', 'repeat a run by the training_args.yaml of its folder, into a new folder')
    .option('--preview', 'show what would run, and do not run it')
    .option('--json', 'print the finished run as JSON')
    .addHelpText('after', '\nExample:\n  anneal train my-run.yaml num_train_epochs=20')
    .action(async (words: string[], { from, preview, json }: TrainOptions) => {
      const input = {
        ...(from === undefined ? {} : await readRepeated(from)),
        ...(await readTrainInput(words)),
      }
      await withApplication(async (application) => {
        if (preview) return showPreview(application, input, json)
        const finished = await train(application, input)
        if (json) printJson(finished.run)
        else print(summaryOf(finished))
      })
    })
}

/** A finished run and its folder, absolute. */
export interface FinishedRun {
  run: TrainingRun
  folder: string
}

/** Starts a run and shows it until its end. */
export async function train(application: Application, input: Record<string, unknown>): Promise<FinishedRun> {
  const { services, self } = application
  const { id, config } = await services.training.create(input, { owner: self, trusted: true })
  const folder = await jobFolder(application, id)
  note(`${id}: training, into ${shownPath(folder)}`)
  try {
    return { run: await runJob(application, services.training, id, trainingPoint), folder }
  } catch (error) {
    if (latestCheckpoint(folder)) {
      const again = { ...(config as TrainConfig), output_dir: shownPath(folder), overwrite_output_dir: false }
      note(`To go on from the last checkpoint:\n${toCommand(again)}`)
    }
    throw error
  }
}

/** Where everything lies, and what can be done with it next. */
export function summaryOf({ run, folder }: FinishedRun): string {
  const { id, stage, config, progress, metrics } = run
  const adapter = config.finetuning_type === 'lora'
  const loss = metrics?.train_loss
  const took = progress ? `${progress.step} steps in ${formatSeconds(progress.elapsed_seconds)}` : 'done'
  const picture = join(folder, 'training_loss.png')
  const rows = [
    ['Finished', loss === undefined ? took : `${took}, mean loss ${loss.toFixed(4)}`],
    [adapter ? 'Adapter' : 'Model', shownPath(folder)],
    ['Checkpoints', shownPath(join(folder, 'checkpoint-*'))],
    ...(existsSync(picture) ? [['Loss picture', shownPath(picture)]] : []),
    // A reward model scores answers with its head, which neither chat nor a merge has.
    ...(stage === 'rm'
      ? [['Value head', shownPath(join(folder, 'value_head.safetensors'))]]
      : [
          ['Chat with it', `npx anneal chat ${id}`],
          ...(adapter ? [['Merge it', `npx anneal merge ${id}`]] : []),
        ]),
  ]
  return formatTable(rows)
}
