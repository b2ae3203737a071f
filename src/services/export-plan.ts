import { EngineError } from '../../engine/errors.ts'
import {
  checkFormatBits,
  type ExportFormat,
  type ExportMethod,
  FORMAT_RULES,
  ggufTypeOf,
  isGguf,
  methodOf,
} from '../../engine/export/formats.ts'
import { checkRoundable, planGguf } from '../../engine/export/gguf.ts'
import { checkModelfile } from '../../engine/export/modelfile.ts'
import { type OpenModel, openModel } from '../../engine/models/index.ts'
import { checkQuantizable } from '../../engine/quant/quantize-model.ts'
import type { WeightDType } from '../../engine/weights/dtypes.ts'
import type { ExportRequest } from '../../routes/services.ts'
import type { DatasetRegistry } from '../datasets/registry.ts'
import type { ModelFacts } from '../models/model-folder.ts'
import type { ModelEntry } from '../models/registry.ts'
import { sourceOf } from '../models/source-model.ts'
import type { ExportTask } from '../tasks/job-tasks.ts'

/** A text that the package's own datasets directory has, for reports where the request names none. */
const REPORT_DATASET = 'small_world'

/**
 * Decides everything that a request leaves open and checks that its parts go together, before any work starts.
 *
 * @throws EngineError `invalid` naming the field that does not fit, `not_found` for an unknown dataset, `unsupported` for a
 *   model that the format has no place for.
 */
export async function planExport(
  request: ExportRequest,
  entry: ModelEntry,
  facts: ModelFacts,
  datasets: DatasetRegistry,
  datasetDir: string,
): Promise<ExportTask> {
  const { format, bits } = request
  checkFormatBits(format, bits)
  const method = methodOf(format, bits, request.method)
  const dtype = request.dtype ?? defaultDType(format, bits, facts)
  const task: ExportTask = {
    model: sourceOf(entry),
    adapterFolder: FORMAT_RULES[format].adapter ? entry.adapterFolder : undefined,
    bits,
    format,
    dtype,
    shardBytes: Math.floor(request.export_size * 1e9),
    ggufType: ggufTypeOf(format, bits, dtype, method, request.gguf_type),
    method,
    groupSize: request.group_size ?? 128,
    symmetric: request.sym ?? true,
    actOrder: request.desc_act,
    damping: request.damp_percent ?? 0.05,
    seed: request.seed,
    calibration: calibrationOf(request, method),
    report:
      bits === 16
        ? undefined
        : { dataset: await reportDataset(request, datasets), tokens: request.report_tokens },
    maxKld: request.max_kld,
    datasetDir,
  }
  checkGate(request)
  checkOnnxDType(format, dtype)
  checkActOrder(request, method)
  checkSettings(request, method)
  await checkDataset(datasets, task.calibration?.dataset, 'export_quantization_dataset')
  const ofReport = request.report_dataset === undefined ? 'export_quantization_dataset' : 'report_dataset'
  await checkDataset(datasets, task.report?.dataset, ofReport)
  if (method !== undefined && !(isGguf(format) && method === 'rtn'))
    checkModel(entry.baseFolder, checkQuantizable)
  if (isGguf(format)) checkModel(entry.baseFolder, checkGgufModel(task))
  if (format === 'ollama') checkModel(entry.baseFolder, (model) => checkModelfile(model, entry.template))
  return task
}

/** LLaMA-Factory's choice: the model's own 16-bit type, and bfloat16 for a wider one. GPTQ's kernels want float16. */
function defaultDType(format: ExportFormat, bits: number, facts: ModelFacts): WeightDType {
  if (bits !== 16 || facts.dtype === 'F16') return 'float16'
  return format === 'onnx' ? 'float32' : 'bfloat16'
}

function calibrationOf(request: ExportRequest, method: ExportMethod | undefined): ExportTask['calibration'] {
  const { export_quantization_dataset: dataset } = request
  if (method !== 'gptq' && method !== 'awq') return undefined
  if (dataset === undefined) {
    throw invalid(
      'calibration_required',
      'Quantization dataset is necessary for exporting: ' +
        `${method.toUpperCase()} rounds by what the layers compute on a text. Name one, or ` +
        'choose method rtn.',
      'export_quantization_dataset',
    )
  }
  const { export_quantization_nsamples: samples, export_quantization_maxlen: length } = request
  return { dataset, samples, length }
}

async function reportDataset(request: ExportRequest, datasets: DatasetRegistry): Promise<string> {
  const named = request.report_dataset ?? request.export_quantization_dataset
  if (named !== undefined) return named
  const known = await datasets.list()
  if (known.some(({ name }) => name === REPORT_DATASET)) return REPORT_DATASET
  throw invalid(
    'report_dataset_required',
    'A quantized export is measured on a text: name a dataset for it.',
    'report_dataset',
  )
}

function checkGate({ bits, max_kld }: ExportRequest): void {
  if (bits !== 16 || max_kld === undefined) return
  throw invalid(
    'export_mismatch',
    'An export of 16 bits is not measured, so max_kld cannot gate it.',
    'max_kld',
  )
}

function checkOnnxDType(format: ExportFormat, dtype: WeightDType): void {
  if (format !== 'onnx' || dtype !== 'bfloat16') return
  throw invalid('export_mismatch', 'ONNX is written as float32 or float16, not as bfloat16.', 'dtype')
}

function checkActOrder({ format, desc_act }: ExportRequest, method: ExportMethod | undefined): void {
  if (!desc_act || (method === 'gptq' && format === 'gptq')) return
  throw invalid(
    'export_mismatch',
    `desc_act belongs to method gptq in the format gptq, not to ${method ?? 'full width'} in ${format}.`,
    'desc_act',
  )
}

/** Settings that would change nothing are refused: whoever gives them expects something of them. */
function checkSettings({ format, ...request }: ExportRequest, method: ExportMethod | undefined): void {
  const inGroups = method !== undefined && !isGguf(format)
  const needed: [field: 'group_size' | 'sym' | 'damp_percent', applies: boolean, where: string][] = [
    ['group_size', inGroups, 'the formats gptq and onnx below 16 bits'],
    ['sym', inGroups, 'the formats gptq and onnx below 16 bits'],
    ['damp_percent', method === 'gptq', 'the method gptq'],
  ]
  const idle = needed.find(([field, applies]) => request[field] !== undefined && !applies)
  if (!idle) return
  const [field, , where] = idle
  const message = `${field} belongs to ${where}, not to ${method ?? 'full width'} in ${format}; leave it out.`
  throw invalid('export_mismatch', message, field)
}

/** @throws EngineError `not_found` naming the field that names the dataset. */
async function checkDataset(
  datasets: DatasetRegistry,
  name: string | undefined,
  param: 'export_quantization_dataset' | 'report_dataset',
): Promise<void> {
  if (name === undefined) return
  await datasets.get(name).catch((error: unknown) => {
    if (!(error instanceof EngineError)) throw error
    throw new EngineError(error.kind, error.code, error.message, { param, cause: error })
  })
}

function checkGgufModel({ ggufType, method }: ExportTask): (model: OpenModel) => void {
  return (model) => {
    const plan = planGguf({ model, type: ggufType! })
    if (method !== undefined && method !== 'rtn') checkRoundable(plan, ggufType!)
  }
}

function checkModel(folder: string, check: (model: OpenModel) => void): void {
  const model = openModel(folder)
  try {
    check(model)
  } finally {
    model.weights.close()
  }
}

function invalid(code: string, message: string, param: string): EngineError {
  return new EngineError('invalid', code, message, { param })
}
