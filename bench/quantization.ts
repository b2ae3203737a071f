/**
 * npm run bench:quantization -- [--model FOLDER] [--samples 32] [--length 512] [--seed 42] [--tokens 2048] SPEC…
 *
 * What ways of quantizing leave of a model (SmolLM2 by default), on wiki_demo.txt against the checkpoint: rows of the table in
 * docs/QUANTIZATION.md. SPEC is method:bits:group:sym|asym with rtn, awq or gptq, calibrated on c4_demo, in GPTQ's layout;
 * or gguf:TYPE or gguf:TYPE:METHOD.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { compareModels } from '../engine/export/compare.ts'
import { ggufFileName, ggufRounding, writeGguf } from '../engine/export/gguf.ts'
import { GgufSourceFile } from '../engine/export/gguf-source.ts'
import type { GgufFileType } from '../engine/export/gguf-types.ts'
import { writeGptq } from '../engine/export/gptq.ts'
import { openModel } from '../engine/models/index.ts'
import { quantizeModel } from '../engine/quant/quantize-model.ts'
import type { QuantMethod } from '../engine/quant/quantize-walk.ts'
import { QuantizedLayers } from '../engine/quant/quantized-layers.ts'
import { QuantizedSource } from '../engine/quant/quantized-source.ts'
import type { WeightSource } from '../engine/quant/weight-source.ts'
import { loadTokenizer } from '../engine/text/tokenizer.ts'
import { realModelFolder } from './model-folder.ts'
import { c4Windows, TEXT_OPTIONS, wikiWindows } from './text-windows.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    ...TEXT_OPTIONS,
    samples: { type: 'string', default: '32' },
    seed: { type: 'string', default: '42' },
  },
})
const folder = realModelFolder(values.model)
const length = Number(values.length)
const model = openModel(folder)
const tokenizer = loadTokenizer(folder)
const windows = wikiWindows(tokenizer, Number(values.tokens), length)
const calibration = () => c4Windows(tokenizer, Number(values.samples), length, Number(values.seed))

/** Matrices that a method with data rounds for a GGUF file. */
async function roundedFor(type: GgufFileType, method: QuantMethod, scratch: string) {
  if (method === 'rtn') return undefined
  const layers = new QuantizedLayers(join(scratch, 'layers'), {})
  const grid = ggufRounding({ model, type })
  const options = { ...grid, actOrder: false, damping: 0.05, calibration: calibration() }
  await quantizeModel(model, layers, { ...options, method })
  return new QuantizedSource(model.weights, layers, model.config.names.layers)
}

async function quantized(spec: string, scratch: string): Promise<{ exported: WeightSource; bytes: number }> {
  const [method, width, group, symmetry] = spec.split(':')
  if (method === 'gguf') {
    const type = width as GgufFileType
    const rounded = (group ?? 'rtn') as QuantMethod
    const plan = await writeGguf(scratch, {
      model,
      type,
      quantized: await roundedFor(type, rounded, scratch),
    })
    return { exported: new GgufSourceFile(join(scratch, ggufFileName(type)), plan), bytes: plan.bytes }
  }
  const options = {
    method: method as QuantMethod,
    bits: Number(width) as 4 | 8,
    groupSize: Number(group),
    symmetric: symmetry === 'sym',
    actOrder: false,
    damping: 0.05,
  }
  const layers = new QuantizedLayers(join(scratch, 'layers'), {})
  await quantizeModel(model, layers, { ...options, calibration: method === 'rtn' ? [] : calibration() })
  const target = { ...options, model, layers, dtype: 'float16', shardBytes: 5e9 } as const
  const bytes = await writeGptq(scratch, target)
  return { exported: new QuantizedSource(model.weights, layers, model.config.names.layers), bytes }
}

console.log(
  '| Spec | Perplexity before | after | Mean KLD | Same top token | Size |\n| --- | --- | --- | --- | --- | --- |',
)
for (const spec of positionals) {
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-quantization-'))
  try {
    const { exported, bytes } = await quantized(spec, scratch)
    const { perplexity, meanKld, sameTop } = await compareModels({ model, exported, windows })
    const [before, after] = [perplexity.before, perplexity.after].map((value) => value.toFixed(2))
    const size = `${(bytes / 1e6).toFixed(1)} MB`
    const same = `${(100 * sameTop).toFixed(1)} %`
    console.log(`| ${spec} | ${before} | ${after} | ${meanKld.toFixed(4)} | ${same} | ${size} |`)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}
model.weights.close()
