import { basename } from 'node:path'
import type { Progress, TrainEvent } from '../../engine/train/events.ts'
import type { TaskContext } from '../jobs/protocol.ts'

/** Tells the supervisor what the loop says, in the wire's names. The last logged loss stays in view between logs. */
export function reportTrainEvent(event: TrainEvent, report: TaskContext['report']): void {
  switch (event.type) {
    case 'start':
      report('log', startMessage(event), {
        total_steps: event.totalSteps,
        steps_per_epoch: event.stepsPerEpoch,
        train_examples: event.examples,
        eval_examples: event.evalExamples,
        trainable_parameters: event.trainableParameters,
        total_parameters: event.allParameters,
        resumed_step: event.resumedStep,
      })
      break
    case 'step':
      report('progress', `Step ${event.step} of ${event.totalSteps}.`, {
        ...progressData(event),
        loss: event.loss,
        learning_rate: event.learningRate,
        grad_norm: event.gradNorm,
      })
      break
    case 'log':
      report('log', `Step ${event.step}: loss ${event.loss.toFixed(4)}`, {
        ...progressData(event),
        mean_loss: event.loss,
        learning_rate: event.learningRate,
        grad_norm: event.gradNorm,
        ...event.metrics,
      })
      break
    case 'eval':
      report('evaluation', `Step ${event.step}: evaluation loss ${event.loss.toFixed(4)}`, {
        ...progressData(event),
        ...event.metrics,
        eval_loss: event.loss,
        eval_runtime: event.seconds,
      })
      break
    case 'checkpoint':
      report('checkpoint', `Saved ${basename(event.path)}.`, {
        step: event.step,
        name: basename(event.path),
        removed: event.removed.map((folder) => basename(folder)),
      })
      break
    case 'stop':
      report('log', event.message, { step: event.step, reason: event.reason })
      break
    case 'best':
      report(
        'log',
        `Took back the weights of step ${event.step}, whose ${event.metric} ${event.value.toFixed(4)} is the best.`,
        {
          step: event.step,
          metric: event.metric,
          value: event.value,
        },
      )
      break
    case 'warning':
      report('warning', event.message, { code: event.code })
      break
    case 'done':
      return
    default:
      event satisfies never
  }
}

function startMessage({
  totalSteps,
  examples,
  trainableParameters,
  allParameters,
  resumedStep,
}: Start): string {
  const from = resumedStep > 0 ? ` from step ${resumedStep}` : ''
  const share = ((100 * trainableParameters) / Math.max(1, allParameters)).toFixed(2)
  return `${totalSteps} steps${from} over ${examples} examples; ${trainableParameters} trainable parameters (${share} %).`
}

type Start = Extract<TrainEvent, { type: 'start' }>

function progressData(progress: Progress): Record<string, number> {
  return {
    step: progress.step,
    total_steps: progress.totalSteps,
    epoch: progress.epoch,
    elapsed_seconds: progress.elapsedSeconds,
    remaining_seconds: progress.remainingSeconds,
    tokens_per_second: progress.tokensPerSecond,
  }
}
