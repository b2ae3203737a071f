import { EngineError } from '../../engine/errors.ts'
import type { TrainConfig } from '../../engine/train/config.ts'
import type { TrainEvent } from '../../engine/train/events.ts'
import type { Settings } from '../settings.ts'
import { mlflowTracker } from './mlflow.ts'
import { tensorboardTracker } from './tensorboard.ts'
import type { TrackedRun, Tracker } from './tracker.ts'

/** Tells of a tracker that failed. */
type Warn = (message: string, data: { code: string }) => void

/**
 * The trackers that report_to names; 'all' stands for those that are set up.
 *
 * @throws EngineError `invalid` for one whose address the operator has not configured.
 */
export function trackersOf(
  { report_to: names }: TrainConfig,
  { tracking }: Pick<Settings, 'tracking'>,
): Tracker[] {
  const wanted = names.includes('all')
    ? ['tensorboard', ...(tracking.mlflow ? ['mlflow'] : [])]
    : names.filter((name) => name !== 'none')
  return wanted.map((name) => {
    if (name === 'tensorboard') return tensorboardTracker()
    if (tracking.mlflow) return mlflowTracker(tracking.mlflow)
    throw new EngineError(
      'invalid',
      'tracker_not_configured',
      'report_to mlflow needs the address of a tracking server, which the operator sets: tracking.mlflow.uri in the ' +
        'config file, or MLFLOW_TRACKING_URI.',
      { param: 'report_to' },
    )
  })
}

/**
 * Returns what passes a run's events on to its trackers. A tracker that fails is warned about once, and the run goes on.
 */
export function trackEvents(
  trackers: readonly Tracker[],
  run: Omit<TrackedRun, 'resumedStep'>,
  warn: Warn,
): (event: TrainEvent) => Promise<void> {
  const failed = new Set<string>()
  const each = async (act: (tracker: Tracker) => Promise<void> | void) => {
    for (const tracker of trackers) {
      try {
        await act(tracker)
      } catch (error) {
        if (!failed.has(tracker.name)) warn(messageOf(tracker, error), { code: 'tracker_failed' })
        failed.add(tracker.name)
      }
    }
  }
  return async (event) => {
    const time = Date.now()
    if (event.type === 'start')
      await each((tracker) => tracker.start({ ...run, resumedStep: event.resumedStep }))
    if (event.type === 'done') await each((tracker) => tracker.finish(time))
    const values = valuesOf(event)
    if (values) await each((tracker) => tracker.log({ time, ...values }))
  }
}

/** What an event adds to the curves. */
function valuesOf(event: TrainEvent): { step: number; values: Record<string, number> } | undefined {
  if (event.type === 'eval') return { step: event.step, values: event.metrics }
  if (event.type !== 'log') return undefined
  const { step, epoch, loss, learningRate, gradNorm, metrics } = event
  return { step, values: { loss, grad_norm: gradNorm, learning_rate: learningRate, ...metrics, epoch } }
}

function messageOf({ name }: Tracker, error: unknown): string {
  const cause = error instanceof Error && error.cause instanceof Error ? ` (${error.cause.message})` : ''
  const reason = error instanceof Error ? error.message + cause : String(error)
  return `The tracker ${name} failed: ${reason}. The run goes on without it until it answers again.`
}
