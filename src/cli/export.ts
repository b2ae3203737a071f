import { Command } from 'commander'
import { exportRequest } from '../../routes/schemas/artifacts.ts'
import { withApplication } from './support/application.ts'
import { checkOutput, copyResult } from './support/copy-result.ts'
import { UsageError } from './support/failure.ts'
import { formatBytes } from './support/format.ts'
import { readModelTarget } from './support/model-target.ts'
import { taskPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface ExportOptions {
  bits: string
  format: string
  dtype?: string
  exportSize: string
  output?: string
  json?: boolean
}

/** `anneal export`: writes a whole model for other programs, with a checksum for each file. */
export function exportCommand(): Command {
  return new Command('export')
    .description('Export a base model or a merge in the Hugging Face layout.')
    .argument('<model>', 'id or folder of a whole model; merge an adapter first')
    .option('--bits <number>', 'width of the weights', '16')
    .option('--format <name>', 'safetensors', 'safetensors')
    .option('--dtype <name>', "bfloat16, float16 or float32 (default: the model's own)")
    .option('--export-size <gigabytes>', 'largest shard', '5')
    .option('--output <folder>', 'also copy the export here')
    .option('--json', 'print the finished export as JSON')
    .action(exportModel)
}

async function exportModel(word: string, options: ExportOptions): Promise<void> {
  if (options.output) await checkOutput(options.output)
  const target = readModelTarget(word)
  const request = readRequest(target.id, options)
  await withApplication(async (application) => {
    const { services, self } = application
    const { id } = await services.exports.create(request, { owner: self, trusted: true })
    note(`${id}: exporting ${target.id} at ${request.bits} bits`)
    const done = await runJob(application, services.exports, id, taskPoint)
    const published = await jobFolder(application, id)
    const folder = options.output ? await copyResult(published, options.output) : published
    if (options.json) return printJson({ ...done, files: await services.exports.files(id) })
    print(`Export: ${id}, ${formatBytes(done.bytes ?? 0)} in ${shownPath(folder)}`)
  }, target.widen)
}

function readRequest(model: string, { bits, format, dtype, exportSize }: ExportOptions) {
  const parsed = exportRequest.safeParse({
    model,
    bits: Number(bits),
    format,
    dtype,
    export_size: Number(exportSize),
  })
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new UsageError(`--${String(issue?.path[0]).replace('_', '-')}: ${issue?.message}`)
}
