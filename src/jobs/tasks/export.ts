import { existsSync } from 'node:fs'
import { readManifest } from '../../../engine/export/manifest.ts'
import { exportSafetensors } from '../../../engine/export/safetensors.ts'
import type { ExportTask } from '../../services/exports.ts'
import type { Task } from '../protocol.ts'
import { byteProgressReporter } from './byte-progress.ts'

/** Exports a model. The output folder appears whole, so one that is there is an earlier start's work. */
export const exportTask: Task = async ({ job, signal, report }) => {
  const { model, dtype, shardBytes } = job.resolved as unknown as ExportTask
  const { files } = existsSync(job.outputDir)
    ? readManifest(job.outputDir)
    : await exportSafetensors({
        modelFolder: model.baseFolder,
        outputFolder: job.outputDir,
        dtype,
        shardBytes,
        onProgress: byteProgressReporter(report),
        signal,
      })
  return { bytes: files.reduce((sum, file) => sum + file.bytes, 0), files }
}
