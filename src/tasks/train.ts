import { templateChoice } from '../../engine/text/template-choice.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import type { CompiledStep } from '../../engine/train/compiled-step.ts'
import { checkFits } from '../../engine/train/estimate.ts'
import { train } from '../../engine/train/loop.ts'
import { objectiveOf } from '../../engine/train/objectives/index.ts'
import { planOutput, prepareOutput } from '../../engine/train/output-dir.ts'
import { createRunFolder } from '../../engine/train/run-folder.ts'
import { DatasetRegistry } from '../datasets/registry.ts'
import { explainOutOfMemory } from '../device/out-of-memory.ts'
import { forgetPredictions, predictAfterTraining } from '../evaluation/after-training.ts'
import type { EvaluatedModel } from '../evaluation/task.ts'
import type { Task, TaskContext } from '../jobs/protocol.ts'
import { loadSettings } from '../settings.ts'
import { trackEvents, trackersOf } from '../tracking/index.ts'
import { buildStep } from '../training/build-step.ts'
import { deriveBase, overBase, readBegin, writeConverted } from '../training/derive-base.ts'
import { capacityNow } from '../training/memory.ts'
import { createModelWriter } from '../training/model-writer.ts'
import { openTrainingBase } from '../training/packing.ts'
import { prepareData } from '../training/prepare-data.ts'
import { previewPrepared } from '../training/preview.ts'
import type { TrainTask } from '../training/task.ts'
import { taskOf } from './job-tasks.ts'
import { byteProgressReporter } from './progress.ts'
import { reportTrainEvent } from './train-events.ts'
import { logTrainEvent } from './train-log.ts'

/** Trains, and lets the result answer its evaluation set where that is asked for. */
export const trainTask: Task = async (context) => {
  const { model, metrics } = await trainModel(context)
  const { job, signal, report } = context
  const { config, datasetDir } = taskOf(job, 'train')
  if (!config.predict_with_generate) return { metrics }
  const datasets = new DatasetRegistry({ directories: [datasetDir] })
  const onRow = (done: number, total: number) => report('log', `Answered ${done} of ${total} questions.`)
  const options = { outputDir: job.outputDir, datasets, placement: job.placement, signal, onRow }
  return { metrics: { ...metrics, ...(await predictAfterTraining(model, config, options)) } }
}

/** Dataset to examples, base to a compiled step, then the loop, whose events go to the run's folder and up. */
async function trainModel(
  context: TaskContext,
): Promise<{ model: EvaluatedModel; metrics: Record<string, number> }> {
  const { job, signal, report } = context
  const task = taskOf(job, 'train')
  const { config } = task
  const { outputDir, placement } = job
  const resumeFrom = openOutput(context)
  const { data, preview, padId } = await prepare(task, context)
  const { memory, checkpointing, halfActivations, bfloat16, lossChunks, parameters } = preview
  const baseFolder = await deriveBase(task, { outputDir, signal, onProgress: byteProgressReporter(report) })
  const run = { ...task, ...overBase(task, baseFolder) }
  const onProgress = (done: number, total: number) =>
    report('progress', `Packed ${done} of ${total} linear layers.`, { fraction: done / total })
  const { base, close } = await openTrainingBase(baseFolder, config, { outputDir, signal, onProgress })
  const objective = objectiveOf(config)
  let step: CompiledStep | undefined
  try {
    const begin = readBegin(task, outputDir)
    const { device } = placement ?? {}
    const savings = { checkpointing, halfActivations, bfloat16, lossChunks }
    step = await buildStep(base, run, { objective, ...savings, begin, device }, [
      ...data.examples,
      ...data.evalExamples,
    ])
    warnOfFallbacks(step, report)
    const writeModel = createModelWriter(run, step)
    const record = createRunFolder({ outputDir, config, writeModel })
    // Read anew here: a server's address may hold credentials, which belong into no job's row.
    const trackers = trackersOf(config, await loadSettings())
    const warn = (message: string, data: { code: string }) => report('warning', message, data)
    const track = trackEvents(trackers, { id: job.id, config, outputDir }, warn)
    const events = train({
      // what was computed, so that a resumed run can tell whether it goes on in the same way
      config: { ...config, fp16: halfActivations, bf16: bfloat16, pure_bf16: false },
      step,
      objective,
      examples: data.examples,
      evaluationSets: data.evaluationSets,
      padId,
      outputDir,
      allParameters: parameters,
      writeModel,
      resumeFrom,
      signal,
    })
    let metrics: Record<string, number> = {}
    for await (const event of events) {
      const isNew = job.attempt === 1 || (event.type === 'start' && event.resumedStep < event.totalSteps)
      if (event.type === 'start' && isNew) forgetPredictions(outputDir)
      await record(event)
      logTrainEvent(event)
      reportTrainEvent(event, report)
      await track(event)
      if (event.type === 'done' && config.pissa_convert) writeConverted(task, step.parameters, outputDir)
      if (event.type === 'done') metrics = { ...event.results.train, ...event.results.eval }
    }
    return { model: trainedModel(job.id, run, outputDir), metrics }
  } catch (error) {
    throw explainOutOfMemory(error, placement, memory.total)
  } finally {
    await step?.release()
    close()
  }
}

/** Reads the data, says what a preview warns of, and refuses a run that does not fit. */
async function prepare(task: TrainTask, { job, signal, report }: TaskContext) {
  const { config, model, datasetDir } = task
  const tokenizer = loadTokenizer(model.baseFolder)
  const datasets = new DatasetRegistry({ directories: [datasetDir] })
  const data = await prepareData({ config, tokenizer, datasets, signal })
  const preview = previewPrepared(task, data, capacityNow(job.placement))
  for (const { code, message } of preview.warnings) report('warning', message, { code })
  checkFits(preview.memory, capacityNow(job.placement).availableBytes)
  return { data, preview, padId: tokenizer.padTokenId }
}

/** What the run has made, as something that answers: an adapter over the base that it was trained on, or a whole model. */
function trainedModel(
  id: string,
  { config, model }: Pick<TrainTask, 'config'> & { model: { baseFolder: string } },
  outputDir: string,
): EvaluatedModel {
  const template = templateChoice(config)
  return config.finetuning_type === 'lora'
    ? { id, baseFolder: model.baseFolder, adapterFolder: outputDir, template }
    : { id, baseFolder: outputDir, template }
}

/**
 * Makes the run's folder ready; returns the checkpoint to go on from. Its first start finds it as the run's creation left
 * it (src/services/training.ts); a later one never overwrites.
 */
function openOutput({ job }: TaskContext): string | undefined {
  const { config } = taskOf(job, 'train')
  const plan = planOutput(job.outputDir, config, job.attempt > 1)
  prepareOutput(job.outputDir, plan)
  return plan.action === 'resume' ? plan.checkpoint : undefined
}

/** A device lacks kernels for some operations of the step: which ones, since it costs time. */
function warnOfFallbacks({ fallbacks }: CompiledStep, report: TaskContext['report']): void {
  if (fallbacks.length === 0) return
  const shown = fallbacks.slice(0, 10).join(', ')
  const rest = fallbacks.length > 10 ? ` and ${fallbacks.length - 10} more` : ''
  const message = `The device has no kernel for ${shown}${rest}; they run on the CPU.`
  report('warning', message, { code: 'runs_on_cpu' })
}
