/**
 * One export in a process of its own; prints seconds, CPU seconds and peak memory as JSON. Its argument is a JSON object:
 * task 'gguf' writes a GGUF file of a type; 'gptq' quantizes to 4 bits in groups of 128 by `method` and writes GPTQ's layout; 'whole' is
 * an export as a job does it, with the report.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportModel } from '../engine/export/export-model.ts'
import { writeGguf } from '../engine/export/gguf.ts'
import type { GgufFileType } from '../engine/export/gguf-types.ts'
import { writeGptq } from '../engine/export/gptq.ts'
import { openModel } from '../engine/models/index.ts'
import { quantizeModel } from '../engine/quant/quantize-model.ts'
import { QuantizedLayers } from '../engine/quant/quantized-layers.ts'

export interface ExportWork {
  task: 'gguf' | 'gptq' | 'whole'
  model: string
  output: string
  method: 'rtn' | 'gptq'
  /** Of a GGUF file. */
  type?: GgufFileType
  /** A JSON file with lists of token ids; for methods with data. */
  windows?: string
}

const SETTINGS = { bits: 4, groupSize: 128, symmetric: true, actOrder: false, damping: 0.05 } as const
const work = JSON.parse(process.argv[2]!) as ExportWork
const windows = work.windows
  ? (JSON.parse(readFileSync(work.windows, 'utf8')) as number[][]).map((ids) => Int32Array.from(ids))
  : []
const workFolder = join(work.output, '.layers')
const start = performance.now()
if (work.task === 'whole') await wholeExport()
else {
  const model = openModel(work.model)
  if (work.task === 'gguf') await writeGguf(work.output, { model, type: work.type! })
  else {
    const layers = new QuantizedLayers(workFolder, {})
    await quantizeModel(model, layers, { ...SETTINGS, method: work.method, calibration: windows })
    const target = {
      ...SETTINGS,
      model,
      layers,
      method: work.method,
      dtype: 'float16',
      shardBytes: 5e9,
    } as const
    await writeGptq(work.output, target)
    layers.remove()
  }
  model.weights.close()
}
const seconds = (performance.now() - start) / 1000
const { maxRSS, userCPUTime, systemCPUTime } = process.resourceUsage()
console.log(
  JSON.stringify({ seconds, cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakBytes: maxRSS * 1024 }),
)

function wholeExport() {
  const text = { dataset: 'random', windows }
  return exportModel({
    ...SETTINGS,
    model: 'bench',
    modelFolder: work.model,
    outputFolder: join(work.output, 'whole'),
    workFolder,
    format: 'gptq',
    dtype: 'float16',
    shardBytes: 5e9,
    ggufType: undefined,
    method: work.method,
    seed: 1,
    calibration: work.method === 'rtn' ? undefined : text,
    text: { ...text, windows: windows.slice(0, 2) },
    maxKld: undefined,
  })
}
