import { Command } from 'commander'
import type { MergeRequest } from '../../routes/services.ts'
import { withApplication } from './support/application.ts'
import { checkOutput, copyResult } from './support/copy-result.ts'
import { UsageError } from './support/failure.ts'
import { formatBytes } from './support/format.ts'
import { readModelTarget } from './support/model-target.ts'
import { taskPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface MergeOptions {
  base?: string
  adapter?: string
  output?: string
  json?: boolean
}

/** `anneal merge`: adds an adapter to its base model's weights. */
export function mergeCommand(): Command {
  return new Command('merge')
    .description('Merge an adapter into its base model.')
    .argument('[run]', 'a run, or one of its checkpoints (run-…:ckpt-step-N)')
    .option('--base <model>', 'merge into this whole model, an id or a folder; needs --adapter')
    .option('--adapter <run>', 'the run or checkpoint whose adapter goes on --base')
    .option('--output <folder>', 'also copy the merged model here')
    .option('--json', 'print the finished merge as JSON')
    .action(merge)
}

async function merge(run: string | undefined, options: MergeOptions): Promise<void> {
  if ((run === undefined) === (options.base === undefined || options.adapter === undefined)) {
    throw new UsageError('Name a run, or a whole model and an adapter: --base MODEL --adapter RUN.')
  }
  if (options.output) await checkOutput(options.output)
  const base = options.base === undefined ? undefined : readModelTarget(options.base)
  await withApplication(async (application) => {
    const { services, self } = application
    const request: MergeRequest = base ? { base: base.id, adapter: options.adapter } : { model: run }
    const { id } = await services.merges.create(request, { owner: self, trusted: true })
    note(`${id}: merging ${run ?? `${options.adapter} into ${options.base}`}`)
    const done = await runJob(application, services.merges, id, taskPoint)
    const published = await jobFolder(application, id)
    const folder = options.output ? await copyResult(published, options.output) : published
    if (options.json) return printJson(done)
    print(`Merged model: ${id}, ${formatBytes(done.bytes ?? 0)} in ${shownPath(folder)}`)
    print(`Chat with it: npx anneal chat ${id}\nExport it:    npx anneal export ${id}`)
  }, base?.widen)
}
