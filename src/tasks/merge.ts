import { existsSync } from 'node:fs'
import { mergeAdapter } from '../../engine/adapter/merge.ts'
import { adoptTemplate } from '../../engine/export/carried-template.ts'
import { readManifest, writeManifest } from '../../engine/export/manifest.ts'
import type { Task } from '../jobs/protocol.ts'
import { readModelFacts } from '../models/model-folder.ts'
import { taskOf } from './job-tasks.ts'
import { byteProgressReporter } from './progress.ts'

/** Merges an adapter into its base. The output folder appears whole, so one that is there is an earlier start's work. */
export const mergeTask: Task = async ({ job, signal, report }) => {
  const { model, baseFolder, adapterFolder } = taskOf(job, 'merge')
  const { dtype } = readModelFacts(baseFolder)
  if (!existsSync(job.outputDir)) {
    await mergeAdapter({
      baseFolder,
      adapterFolder,
      outputFolder: job.outputDir,
      digests: true,
      finish: async (partial, digests) => {
        adoptTemplate(partial, model.template)
        await writeManifest(partial, { format: 'safetensors', dtype }, signal, digests)
      },
      onProgress: byteProgressReporter(report),
      signal,
    })
  }
  return { bytes: readModelFacts(job.outputDir).weightBytes, files: readManifest(job.outputDir).files }
}
