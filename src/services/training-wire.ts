import { relative } from 'node:path'
import type { listCheckpoints } from '../../engine/train/checkpoint.ts'
import type { TrainingPreview as EnginePreview } from '../../engine/train/preview.ts'
import type { TrainingProgress } from '../../routes/schemas/training.ts'
import type { Checkpoint, TrainingPreview, TrainingRun } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import { taskOf } from '../tasks/job-tasks.ts'
import type { TrainTask } from '../training/task.ts'
import { jobFieldsOf, unixTime } from './jobs.ts'

/** A run as the API shows it; its folder relative to the saves, where it lies in them. */
export function runToWire(job: Job, saves: string): TrainingRun {
  const { model, config } = taskOf(job, 'train')
  const inside = relative(saves, job.outputDir)
  const metrics = job.result?.metrics as Record<string, number> | undefined
  return {
    id: job.id,
    object: 'training.run',
    model: model.id,
    stage: config.stage,
    finetuning_type: config.finetuning_type,
    datasets: config.dataset,
    output_dir: inside.startsWith('..') ? job.outputDir : inside,
    config: { ...config },
    progress: progressOf(job),
    metrics: metrics ?? null,
    ...jobFieldsOf(job),
  }
}

/** What a run would do, as the API shows it. @param available bytes that it may take. */
export function previewToWire(
  { model }: TrainTask,
  preview: EnginePreview,
  available: number,
): TrainingPreview {
  const required = preview.memory.total
  return {
    object: 'training.preview',
    model: model.id,
    config: { ...preview.config },
    command: preview.command,
    yaml: preview.yaml,
    train_examples: preview.examples,
    eval_examples: preview.evalExamples,
    truncated_examples: preview.truncated,
    tokens_per_epoch: preview.tokensPerEpoch,
    trained_tokens_per_epoch: preview.trainedTokensPerEpoch,
    steps_per_epoch: preview.stepsPerEpoch,
    total_steps: preview.totalSteps,
    total_parameters: preview.parameters,
    trainable_parameters: preview.trainableParameters,
    memory: { required_bytes: required, available_bytes: available, fits: required <= available },
    warnings: preview.warnings,
  }
}

function progressOf({ progress }: Job): TrainingProgress | null {
  if (typeof progress?.step !== 'number' || typeof progress.total_steps !== 'number') return null
  const number = (value: unknown) => (typeof value === 'number' ? value : null)
  return {
    step: progress.step,
    total_steps: progress.total_steps,
    epoch: number(progress.epoch) ?? 0,
    loss: number(progress.loss),
    learning_rate: number(progress.learning_rate),
    tokens_per_second: number(progress.tokens_per_second),
    elapsed_seconds: number(progress.elapsed_seconds) ?? 0,
    remaining_seconds: number(progress.remaining_seconds),
  }
}

/** A run's checkpoint as the API shows it. */
export function checkpointToWire(
  runId: string,
  info: ReturnType<typeof listCheckpoints>[number],
): Checkpoint {
  return {
    id: `${runId}:ckpt-step-${info.step}`,
    object: 'training.checkpoint',
    run_id: runId,
    step: info.step,
    epoch: info.epoch,
    loss: info.loss,
    eval_loss: info.evalLoss,
    bytes: info.bytes,
    created_at: unixTime(info.createdAt),
  }
}
