import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import { TRAINING_ARGS_FILE } from './checkpoint.ts'
import { type TrainConfig, toYaml } from './config.ts'
import type { History, Results, TrainEvent } from './events.ts'
import { modelCard } from './model-card.ts'
import { plotCurve } from './plot.ts'
import { appendTrainerLog, logCurve, readTrainerLog, truncateTrainerLog } from './trainer-log.ts'
import { TRAINER_STATE_FILE, trainerState } from './trainer-state.ts'

export const LOSS_PICTURE_FILE = 'training_loss.png'
const EVAL_LOSS_PICTURE_FILE = 'training_eval_loss.png'

export interface RunFolderOptions {
  /** The folder; it exists. */
  outputDir: string
  config: TrainConfig
  /** Writes the adapter or the weights, and the tokenizer's files, into an existing folder. */
  writeModel: (folder: string) => Promise<void> | void
}

/** Returns a recorder that keeps the run folder's own files up to date from the events of `train`. */
export function createRunFolder(options: RunFolderOptions): (event: TrainEvent) => Promise<void> {
  const { outputDir, config } = options
  return async (event) => {
    if (event.type === 'start') {
      writeFileDurably(join(outputDir, TRAINING_ARGS_FILE), toYaml(config))
      truncateTrainerLog(outputDir, event.resumedStep)
    } else if (event.type === 'log' || event.type === 'eval') {
      appendTrainerLog(outputDir, event)
    } else if (event.type === 'done') {
      appendTrainerLog(outputDir, event)
      await options.writeModel(outputDir)
      writeFileDurably(join(outputDir, TRAINER_STATE_FILE), trainerState(event.history, config))
      writeResults(outputDir, event.results)
      writeFileDurably(join(outputDir, 'README.md'), modelCard(config, event))
      if (config.plot_loss) writePictures(outputDir, event.history)
    }
  }
}

/** The picture of a run's loss so far, from its log; undefined when nothing was logged yet. */
export function drawLoss(outputDir: string, metric: 'loss' | 'eval_loss' = 'loss'): Uint8Array | undefined {
  const lines = readTrainerLog(outputDir)
  if (metric === 'eval_loss') {
    return plotCurve(logCurve(lines, metric), { title: 'evaluation loss', label: metric })
  }
  const evaluation = logCurve(lines, 'eval_loss')
  return plotCurve(logCurve(lines, metric), { title: 'training loss', label: metric, evaluation })
}

/** Metrics that get a picture of their own where a run has them, with LLaMA-Factory's name of it. */
const METRIC_PICTURES = {
  'training_rewards_accuracies.png': 'rewards/accuracies',
  'training_rewards_chosen.png': 'rewards/chosen',
}

function writePictures(outputDir: string, { entries }: History): void {
  const curveOf = (metric: string) => {
    const logged = entries.filter((entry) => entry[metric] !== undefined)
    return { steps: logged.map(({ step }) => step), values: logged.map((entry) => entry[metric]!) }
  }
  const pictures = Object.entries(METRIC_PICTURES).map(([file, metric]) => {
    return [file, plotCurve(curveOf(metric), { title: metric, label: metric })] as const
  })
  for (const [file, png] of [
    [LOSS_PICTURE_FILE, drawLoss(outputDir)] as const,
    [EVAL_LOSS_PICTURE_FILE, drawLoss(outputDir, 'eval_loss')] as const,
    ...pictures,
  ]) {
    if (png) writeFileSync(join(outputDir, file), png)
    else rmSync(join(outputDir, file), { force: true })
  }
}

function writeResults(outputDir: string, { train, eval: evaluation }: Results): void {
  writeJson(join(outputDir, 'train_results.json'), train)
  if (evaluation) writeJson(join(outputDir, 'eval_results.json'), evaluation)
  writeJson(join(outputDir, 'all_results.json'), { ...train, ...evaluation })
}

/** Sorted keys and four spaces, as transformers writes results. */
function writeJson(path: string, value: Record<string, number>): void {
  const sorted = Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
  writeFileDurably(path, `${JSON.stringify(sorted, null, 4)}\n`)
}
