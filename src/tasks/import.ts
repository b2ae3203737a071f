import { existsSync } from 'node:fs'
import { importGguf } from '../../engine/gguf/import.ts'
import type { Task } from '../jobs/protocol.ts'
import { readModelFacts } from '../models/model-folder.ts'
import { taskOf } from './job-tasks.ts'
import { byteProgressReporter } from './progress.ts'

/** Makes a base model of a GGUF file. The folder appears whole: one that a second start finds is the first one's work. */
export const importTask: Task = async ({ job, signal, report }) => {
  const { file, dtype } = taskOf(job, 'import')
  if (job.attempt === 1 || !existsSync(job.outputDir)) {
    const onProgress = byteProgressReporter(report)
    await importGguf({ file, outputFolder: job.outputDir, dtype, onProgress, signal })
  }
  return { bytes: readModelFacts(job.outputDir).weightBytes }
}
