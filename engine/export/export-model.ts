import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { type OpenModel, openModel } from '../models/index.ts'
import { quantizeModel } from '../quant/quantize-model.ts'
import type { QuantizeOptions } from '../quant/quantize-walk.ts'
import { QuantizedLayers } from '../quant/quantized-layers.ts'
import { QuantizedSource } from '../quant/quantized-source.ts'
import type { WeightSource } from '../quant/weight-source.ts'
import type { TemplateChoice } from '../text/template-choice.ts'
import { checkVacant, commitFolder } from '../weights/atomic-folder.ts'
import type { WeightDType } from '../weights/dtypes.ts'
import { adoptTemplate } from './carried-template.ts'
import { compareModels } from './compare.ts'
import { type ExportFormat, type ExportMethod, isGguf } from './formats.ts'
import { ggufFileName, ggufRounding, writeGguf } from './gguf.ts'
import { GgufSourceFile } from './gguf-source.ts'
import type { GgufFileType } from './gguf-types.ts'
import { writeGptq } from './gptq.ts'
import { type Manifest, readManifest, writeManifest } from './manifest.ts'
import { putsBos, writeModelfile } from './modelfile.ts'
import { writeOnnx } from './onnx.ts'
import { type PhaseProgress, phases } from './progress.ts'
import { type ExportReport, gateError, measured, writeReport } from './report.ts'

/** Windows of a named text. */
export interface TextWindows {
  readonly dataset: string
  readonly windows: readonly Int32Array[]
}

/** A whole model's export, everything decided. */
export interface ModelExport {
  /** For the report and the file's own name. */
  readonly model: string
  readonly modelFolder: string
  /** The chat template that training used; undefined is the folder's own. */
  readonly template?: string | TemplateChoice | undefined
  /** Must not exist, or be empty. */
  readonly outputFolder: string
  /** Keeps finished layers for a restart; removed in the end. */
  readonly workFolder: string
  readonly format: Exclude<ExportFormat, 'safetensors' | 'adapter' | 'adapter-gguf'>
  readonly bits: 16 | 8 | 4
  readonly dtype: WeightDType
  readonly shardBytes: number
  readonly ggufType: GgufFileType | undefined
  readonly method: ExportMethod | undefined
  readonly groupSize: number
  readonly symmetric: boolean
  readonly actOrder: boolean
  readonly damping: number
  readonly seed: number
  readonly calibration: TextWindows | undefined
  /** What the report measures on; needed below 16 bits. */
  readonly text: TextWindows | undefined
  readonly maxKld: number | undefined
  readonly threads?: number
  /** What is written at most, for the message when the disk is full. */
  readonly neededBytes?: number
  readonly onProgress?: (progress: { fraction: number; message: string }) => void
  readonly signal?: AbortSignal
}

/** What a writer made: how to read its weights back, and their bytes. */
interface Written {
  readonly exported: WeightSource
  readonly bytes: number
  /** SHA-256 of files that were hashed as they were written, by name. */
  readonly digests?: ReadonlyMap<string, string>
  close(): void
}

type Phase = 'quantize' | 'write' | 'measure'

/**
 * Exports a model in a format of other programs, below 16 bits with a report of what it lost. The folder appears whole or
 * not at all; when the loss is above `maxKld`, it appears with the report alone and the export fails.
 *
 * @throws EngineError `invalid` with code kld_too_high, `unsupported` for models that the format has no place for,
 *   `too_large`, `conflict`, `cancelled`.
 */
export async function exportModel(options: ModelExport): Promise<Manifest> {
  const { outputFolder, bits, format, signal } = options
  const start = performance.now()
  checkVacant(outputFolder)
  const model = openModel(options.modelFolder)
  const run = phases<Phase>(sharesOf(options), (fraction, message) =>
    options.onProgress?.({ fraction, message }),
  )
  try {
    const report = await commitFolder(
      outputFolder,
      async (partial) => {
        const written = await write(partial, model, options, run('quantize'), run('write'))
        try {
          const report =
            bits === 16 ? undefined : await measure(model, written, options, run('measure'), start)
          if (report && !report.passed) emptyFolder(partial)
          if (report) writeReport(partial, report)
          await writeManifest(
            partial,
            { format, dtype: options.ggufType ?? options.dtype },
            signal,
            written.digests,
          )
          return report
        } finally {
          written.close()
        }
      },
      signal,
      options.neededBytes,
    )
    rmSync(options.workFolder, { recursive: true, force: true })
    if (report && !report.passed) throw gateError(report)
    return readManifest(outputFolder)
  } finally {
    model.weights.close()
  }
}

/** How long the phases take beside each other, roughly. */
function sharesOf({ format, method, bits }: ModelExport): Record<Phase, number> {
  const atOnce = bits === 16 || (isGguf(format) && method === 'rtn')
  const quantize = atOnce ? 0 : method === 'rtn' ? 1 : 12
  return { quantize, write: 1, measure: bits === 16 ? 0 : 2 }
}

async function write(
  folder: string,
  model: OpenModel,
  options: ModelExport,
  quantizing: PhaseProgress,
  writing: PhaseProgress,
): Promise<Written> {
  if (isGguf(options.format)) return writeGgufFiles(folder, model, options, quantizing, writing)
  const written = await writeFolder(folder, model, options, quantizing, writing)
  adoptTemplate(folder, options.template)
  return written
}

async function writeFolder(
  folder: string,
  model: OpenModel,
  options: ModelExport,
  quantizing: PhaseProgress,
  writing: PhaseProgress,
): Promise<Written> {
  const { format, bits } = options
  if (bits === 16) {
    const bytes = await writeOnnx(folder, { ...options, bits, model, layers: undefined, onProgress: writing })
    return { exported: model.weights, bytes, close: () => {} }
  }
  const layers = await quantize(model, options, quantizing)
  const source = quantizedSource(model, layers)
  const target = { ...options, model, layers, bits, onProgress: writing }
  const bytes = format === 'gptq' ? await writeGptq(folder, target) : await writeOnnx(folder, target)
  return { exported: source, bytes, close: () => {} }
}

async function writeGgufFiles(
  folder: string,
  model: OpenModel,
  options: ModelExport,
  quantizing: PhaseProgress,
  progress: PhaseProgress,
): Promise<Written> {
  const type = options.ggufType!
  const isRounded = options.method !== undefined && options.method !== 'rtn'
  const rounding = isRounded && { ...options, ...ggufRounding({ model, type }) }
  const plan = await writeGguf(folder, {
    model,
    name: options.model,
    template: options.template,
    addBos: options.format === 'ollama' ? putsBos(model.folder, options.template) : undefined,
    type,
    quantized: rounding ? quantizedSource(model, await quantize(model, rounding, quantizing)) : undefined,
    onProgress: ({ done, total, message = '' }) => progress(done / total, message),
    signal: options.signal,
  })
  const file = ggufFileName(type)
  if (options.format === 'ollama') {
    const { template } = options
    const context = plan.contextLength
    writeModelfile(folder, { modelFolder: model.folder, template, ggufFile: file, context })
  }
  const exported = new GgufSourceFile(join(folder, file), plan)
  const digests = new Map([[file, plan.sha256]])
  return { exported, bytes: plan.bytes, digests, close: () => exported.close() }
}

function quantizedSource(model: OpenModel, layers: QuantizedLayers): QuantizedSource {
  return new QuantizedSource(model.weights, layers, model.config.names.layers)
}

async function quantize(
  model: OpenModel,
  options: ModelExport & Pick<QuantizeOptions, 'signedScales' | 'blockTypes'>,
  progress: PhaseProgress,
): Promise<QuantizedLayers> {
  const { method, bits, groupSize, symmetric, signedScales, actOrder, damping, seed, calibration } = options
  const data = { dataset: calibration?.dataset, samples: calibration?.windows.length, seed }
  const length = calibration?.windows[0]?.length
  const settings = {
    folder: model.folder,
    method,
    bits,
    groupSize,
    symmetric,
    signedScales,
    ggufType: options.ggufType,
    actOrder,
    damping,
    ...data,
    length,
  }
  const layers = new QuantizedLayers(options.workFolder, settings)
  await quantizeModel(model, layers, {
    ...options,
    method: method!,
    bits: bits as 4 | 8,
    calibration: calibration?.windows ?? [],
    onProgress: (layer, count) => progress(layer / count, `layer ${layer} of ${count}`),
  })
  return layers
}

async function measure(
  model: OpenModel,
  { exported, bytes }: Written,
  options: ModelExport,
  progress: PhaseProgress,
  start: number,
): Promise<ExportReport> {
  const { text, maxKld, threads, signal, method, calibration } = options
  const comparison = await compareModels({
    model,
    exported,
    windows: text!.windows,
    hasScaledInputs: method === 'awq',
    threads,
    signal,
    onProgress: (fraction) => progress(fraction, `comparing on ${text!.dataset}`),
  })
  const before = [...model.weights.entries.values()].reduce((sum, { byteLength }) => sum + byteLength, 0)
  const inGroups = options.ggufType === undefined
  return {
    model: options.model,
    format: options.format,
    bits: options.bits,
    gguf_type: options.ggufType ?? null,
    method: method!,
    group_size: inGroups ? options.groupSize : null,
    sym: inGroups ? options.symmetric : null,
    desc_act: inGroups ? options.actOrder : null,
    damp_percent: method === 'gptq' ? options.damping : null,
    seed: options.seed,
    calibration: calibration
      ? {
          dataset: calibration.dataset,
          samples: calibration.windows.length,
          tokens_each: calibration.windows[0]!.length,
        }
      : null,
    size: { before, after: bytes },
    text: { dataset: text!.dataset, tokens: comparison.tokens },
    ...measured(comparison),
    seconds: (performance.now() - start) / 1000,
    peak_memory: process.resourceUsage().maxRSS * 1024,
    max_kld: maxKld ?? null,
    passed: maxKld === undefined || comparison.meanKld <= maxKld,
  }
}

function emptyFolder(folder: string): void {
  for (const name of readdirSync(folder)) rmSync(join(folder, name), { recursive: true })
}
