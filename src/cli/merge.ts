import { Command } from 'commander'
import type { MergeRequest } from '../../routes/services.ts'
import type { Application } from '../application.ts'
import { withApplication } from './support/application.ts'
import { isConfigFile, readCommandFile, runInFolder } from './support/command-file.ts'
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
    .argument('[run]', "a run, or one of its checkpoints (run-…:ckpt-step-N), or LLaMA-Factory's file for it")
    .option('--base <model>', 'merge into this whole model, an id or a folder; needs --adapter')
    .option('--adapter <run>', 'the run or checkpoint whose adapter goes on --base')
    .option('--output <folder>', 'also copy the merged model here')
    .option('--json', 'print the finished merge as JSON')
    .addHelpText('after', '\nExample:\n  anneal merge run-3f9a1c07b2de')
    .action(merge)
}

async function merge(run: string | undefined, options: MergeOptions): Promise<void> {
  if (isConfigFile(run)) return mergeFile(run, options)
  if ((run === undefined) === (options.base === undefined || options.adapter === undefined)) {
    throw new UsageError('Name a run, or a whole model and an adapter: --base MODEL --adapter RUN.')
  }
  if (options.output) await checkOutput(options.output)
  const base = options.base === undefined ? undefined : readModelTarget(options.base)
  await withApplication(async (application) => {
    const request: MergeRequest = base ? { base: base.id, adapter: options.adapter } : { model: run }
    await runMerge(application, request, options)
  }, base?.widen)
}

/** A merge as LLaMA-Factory's examples/merge_lora ask for it. */
async function mergeFile(file: string, options: MergeOptions): Promise<void> {
  const fields = [
    'model_name_or_path',
    'adapter_name_or_path',
    'template',
    'export_dir',
    'export_size',
  ] as const
  const given = await readCommandFile(file, fields, { export_legacy_format: [false] })
  const { adapter_name_or_path: adapter, export_dir: output = options.output } = given
  if (adapter === undefined || adapter.includes(',')) {
    throw new UsageError(
      `${file} must name one adapter in adapter_name_or_path. A whole model is exported: anneal export MODEL.`,
    )
  }
  if (given.export_size !== undefined)
    note("A merge keeps its base model's files; `anneal export` makes shards of export_size.")
  if (output) await checkOutput(output)
  await withApplication(async (application) => {
    await runMerge(application, { model: await runInFolder(application, adapter) }, { ...options, output })
  })
}

async function runMerge(
  application: Application,
  request: MergeRequest,
  options: MergeOptions,
): Promise<void> {
  const { services, self } = application
  const { id, base, adapter } = await services.merges.create(request, { owner: self, trusted: true })
  note(`${id}: merging ${adapter} into ${base}`)
  const done = await runJob(application, services.merges, id, taskPoint)
  const published = await jobFolder(application, id)
  const folder = options.output ? await copyResult(published, options.output) : published
  if (options.json) return printJson(done)
  print(`Merged model: ${id}, ${formatBytes(done.bytes ?? 0)} in ${shownPath(folder)}`)
  print(`Chat with it: npx anneal chat ${id}\nExport it:    npx anneal export ${id}`)
}
