import { basename, extname } from 'node:path'
import { Command } from 'commander'
import { EXPORT_FORMATS } from '../../engine/export/formats.ts'
import { exportRequest } from '../../routes/schemas/artifacts.ts'
import { withApplication } from './support/application.ts'
import { isConfigFile, readCommandFile } from './support/command-file.ts'
import { checkOutput, copyResult } from './support/copy-result.ts'
import { UsageError } from './support/failure.ts'
import { formatBytes } from './support/format.ts'
import { readModelTarget } from './support/model-target.ts'
import { taskPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface ExportOptions {
  exportSize: string
  output?: string
  json?: boolean
  [field: string]: string | boolean | undefined
}

/** `anneal export`: writes a model for other programs, with a checksum for each file. */
export function exportCommand(): Command {
  return new Command('export')
    .description('Export a base model, a merge or an adapter for other programs.')
    .argument(
      '<model>',
      "id or folder of a whole model, id of a run for the adapter formats, or LLaMA-Factory's file for it",
    )
    .option('--bits <number>', 'width of the weights: 16, 8 or 4', '16')
    .option('--format <name>', EXPORT_FORMATS.join(', '), 'safetensors')
    .option('--dtype <name>', "bfloat16, float16 or float32 (default: the model's own)")
    .option('--export-size <gigabytes>', 'largest shard', '5')
    .option('--gguf-type <name>', 'file type of a GGUF: Q8_0, Q4_0, Q4_1, Q4_K_M, …')
    .option('--method <name>', 'rtn, gptq or awq')
    .option('--group-size <number>', 'inputs that share a scale: 32, 64 or 128')
    .option('--asym', 'asymmetric codes')
    .option('--desc-act', 'GPTQ: the largest activations first')
    .option('--damp-percent <number>', 'GPTQ: damping')
    .option('--export-quantization-dataset <name>', 'calibration text')
    .option('--export-quantization-nsamples <number>', 'calibration windows')
    .option('--export-quantization-maxlen <number>', 'tokens of each window')
    .option('--seed <number>', 'of the calibration windows')
    .option('--report-dataset <name>', 'text that the report measures on')
    .option('--report-tokens <number>', 'how much of it')
    .option('--max-kld <number>', 'fail when the mean KL divergence is larger')
    .option('--output <folder>', 'also copy the export here')
    .option('--json', 'print the finished export as JSON')
    .addHelpText('after', '\nExample:\n  anneal export merge-91be04d2aa3c --format gguf --bits 4')
    .action(exportModel)
}

async function exportModel(word: string, options: ExportOptions): Promise<void> {
  if (isConfigFile(word)) return exportFile(word, options)
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

const FILE_FIELDS = [
  'model_name_or_path',
  'adapter_name_or_path',
  'template',
  'export_dir',
  'export_size',
  'export_quantization_bit',
  'export_quantization_dataset',
  'export_quantization_nsamples',
  'export_quantization_maxlen',
] as const

/** An export as LLaMA-Factory's examples/merge_lora ask for it: GPTQ where they name bits. */
async function exportFile(file: string, options: ExportOptions): Promise<void> {
  const given = await readCommandFile(file, FILE_FIELDS, { export_legacy_format: [false] })
  const { model_name_or_path: model, export_dir: output, export_quantization_bit: bits } = given
  if (given.adapter_name_or_path !== undefined) {
    throw new UsageError(
      `${file} names an adapter: merge it with \`anneal merge ${file}\`, then export the merge.`,
    )
  }
  if (model === undefined) throw new UsageError(`${file} must name a model in model_name_or_path.`)
  const dataset = given.export_quantization_dataset
  return exportModel(model, {
    ...options,
    output: output ?? options.output,
    ...(given.export_size !== undefined && { exportSize: given.export_size }),
    ...(bits !== undefined && { bits, format: 'gptq', method: 'gptq' }),
    // There it is a file's path, here a dataset's name.
    ...(dataset !== undefined && { exportQuantizationDataset: basename(dataset, extname(dataset)) }),
    exportQuantizationNsamples: given.export_quantization_nsamples,
    exportQuantizationMaxlen: given.export_quantization_maxlen,
  })
}

/** Options whose values are numbers in the request. */
const NUMBERS = new Set([
  'bits',
  'export_size',
  'group_size',
  'damp_percent',
  'export_quantization_nsamples',
  'export_quantization_maxlen',
  'seed',
  'report_tokens',
  'max_kld',
])

/** The request that the options spell, each under the field's own name. */
function readRequest(model: string, { output: _, json: __, asym, ...options }: ExportOptions) {
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  const fields = given.map(([option, value]) => {
    const field = option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
    return [field, NUMBERS.has(field) ? Number(value) : value]
  })
  const parsed = exportRequest.safeParse({
    model,
    ...Object.fromEntries(fields),
    ...(asym ? { sym: false } : {}),
  })
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new UsageError(`--${String(issue?.path[0]).replaceAll('_', '-')}: ${issue?.message}`)
}
