import { existsSync, rmSync } from 'node:fs'
import { EngineError } from '../../engine/errors.ts'
import { exportAdapter } from '../../engine/export/adapter.ts'
import { exportModel, type ModelExport } from '../../engine/export/export-model.ts'
import { type Manifest, readManifest } from '../../engine/export/manifest.ts'
import { readReport } from '../../engine/export/report.ts'
import { exportSafetensors } from '../../engine/export/safetensors.ts'
import type { Task, TaskContext } from '../jobs/protocol.ts'
import { workFolderOf } from '../models/work-folder.ts'
import { calibrationText, reportText } from './export-texts.ts'
import { type ExportTask, taskOf } from './job-tasks.ts'
import { byteProgressReporter, shareProgressReporter } from './progress.ts'

/** Exports a model. The output folder appears whole, so one that is there is an earlier start's work. */
export const exportTask: Task = async (context) => {
  const { job } = context
  const task = taskOf(job, 'export')
  const { files } = existsSync(job.outputDir) ? readManifest(job.outputDir) : await runExport(context, task)
  const report = readReport(job.outputDir)
  return { bytes: files.reduce((sum, file) => sum + file.bytes, 0), files, ...(report ? { report } : {}) }
}

async function runExport({ job, report, signal }: TaskContext, task: ExportTask): Promise<Manifest> {
  const { model, format, dtype, shardBytes } = task
  const { template } = model
  const folders = { modelFolder: model.baseFolder, outputFolder: job.outputDir }
  if (format === 'safetensors') {
    const onProgress = byteProgressReporter(report)
    return exportSafetensors({ ...folders, template, dtype, shardBytes, onProgress, signal })
  }
  if (format === 'adapter' || format === 'adapter-gguf') {
    return exportAdapter({ ...folders, adapterFolder: task.adapterFolder!, format, dtype, signal })
  }
  const workFolder = workFolderOf(job.outputDir)
  try {
    return await exportModel({
      ...task,
      ...folders,
      model: model.id,
      template,
      workFolder,
      format,
      bits: task.bits as ModelExport['bits'],
      calibration: await calibrationText(task),
      text: await reportText(task),
      onProgress: shareProgressReporter(report),
      signal,
    })
  } catch (error) {
    // What a stopped job has finished, its next start goes on from; a failed one has none.
    if (!(error instanceof EngineError && error.kind === 'cancelled')) {
      rmSync(workFolder, { recursive: true, force: true })
    }
    throw error
  }
}
