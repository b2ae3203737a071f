import type { TrainEvent } from '../../engine/train/events.ts'

/** Writes a line of the run's running_log.txt, which is this process's output; a single step has none. */
export function logTrainEvent(event: TrainEvent): void {
  const line = lineOf(event)
  if (line !== undefined) console.log(`${new Date().toISOString()} ${line}`)
}

function lineOf(event: TrainEvent): string | undefined {
  switch (event.type) {
    case 'start':
      return `${event.totalSteps} steps, ${event.examples} examples`
    case 'log': {
      const rate = event.learningRate.toExponential(3)
      return `step ${event.step}/${event.totalSteps} loss ${event.loss.toFixed(4)} learning rate ${rate}`
    }
    case 'eval':
      return `step ${event.step} evaluation loss ${event.loss.toFixed(4)}`
    case 'checkpoint':
      return `saved ${event.path}`
    case 'stop':
      return event.message
    case 'best':
      return `took back the weights of step ${event.step}`
    case 'warning':
      return `warning: ${event.message}`
    case 'done':
      return 'finished'
    case 'step':
      return undefined
    default:
      return event satisfies never
  }
}
