/**
 * npx tsx tests/parity/gguf-kld.ts [MODEL] (needs llama-perplexity: LLAMA_PERPLEXITY)
 *
 * The divergence of our GGUF files as llama.cpp's own tool measures it, beside our report's: eight windows of 512 tokens of
 * wiki_demo.txt, of which llama-perplexity counts the second halves, against the BF16 file. GPTQ is calibrated on the text behind
 * them. Writes gguf-kld.json.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { realModelFolder } from '../../bench/model-folder.ts'
import { compareModels } from '../../engine/export/compare.ts'
import { ggufFileName, ggufRounding, writeGguf } from '../../engine/export/gguf.ts'
import { GgufSourceFile } from '../../engine/export/gguf-source.ts'
import type { GgufFileType } from '../../engine/export/gguf-types.ts'
import { openModel } from '../../engine/models/index.ts'
import { quantizeModel } from '../../engine/quant/quantize-model.ts'
import type { QuantMethod } from '../../engine/quant/quantize-walk.ts'
import { QuantizedLayers } from '../../engine/quant/quantized-layers.ts'
import { QuantizedSource } from '../../engine/quant/quantized-source.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'

const [LENGTH, WINDOWS, CALIBRATION] = [512, 8, 16]
const tool = process.env.LLAMA_PERPLEXITY ?? 'llama-perplexity'
const folder = realModelFolder(process.argv[2])
const text = resolve(import.meta.dirname, '../../../shared/data/wiki_demo.txt')
const scratch = mkdtempSync(join(tmpdir(), 'anneal-kld-'))
const model = openModel(folder)
const tokens = loadTokenizer(folder).encode(readFileSync(text, 'utf8'))
const windows = Array.from({ length: WINDOWS }, (_, i) => tokens.slice(i * LENGTH, (i + 1) * LENGTH))

function perplexity(file: string, ...more: string[]): string {
  const logits = ['--kl-divergence-base', join(scratch, 'logits')]
  const args = ['-m', file, '-f', text, '-c', String(LENGTH), '--chunks', String(WINDOWS), '-t', '2']
  return execFileSync(tool, [...args, ...logits, ...more], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

/** A number behind a name in the tool's summary. */
function found(output: string, name: string): number {
  const match = new RegExp(`${name}[^:\\n]*:\\s*([-\\d.]+)`).exec(output)
  if (!match) throw new Error(`llama-perplexity says nothing of ${name}:\n${output}`)
  return Number(match[1])
}

/** Matrices rounded on the text behind the one that is measured. */
async function rounded(type: GgufFileType, method: QuantMethod): Promise<QuantizedSource> {
  const layers = new QuantizedLayers(join(scratch, `${type}-${method}`), {})
  const calibration = Array.from({ length: CALIBRATION }, (_, i) =>
    tokens.slice((WINDOWS + i) * LENGTH, (WINDOWS + i + 1) * LENGTH),
  )
  const options = { ...ggufRounding({ model, type }), method, actOrder: false, damping: 0.05, calibration }
  await quantizeModel(model, layers, options)
  return new QuantizedSource(model.weights, layers, model.config.names.layers)
}

try {
  await writeGguf(scratch, { model, type: 'BF16' })
  perplexity(join(scratch, ggufFileName('BF16')))
  const rows = []
  const cases = [['Q8_0'], ['Q4_0'], ['Q4_0', 'gptq'], ['Q4_K_M']] as const
  for (const [type, method] of cases) {
    const plan = await writeGguf(scratch, { model, type, quantized: method && (await rounded(type, method)) })
    const file = join(scratch, ggufFileName(type))
    const output = perplexity(file, '--kl-divergence')
    const exported = new GgufSourceFile(file, plan)
    const ours = await compareModels({ model, exported, windows, from: LENGTH / 2 })
    exported.close()
    const row = {
      type,
      method: method ?? 'rtn',
      bytes: plan.bytes,
      llama: {
        kld: found(output, 'Mean +KLD'),
        perplexity: found(output, 'Mean PPL\\(Q\\)'),
      },
      ours: { kld: ours.meanKld, sameTop: ours.sameTop, perplexity: ours.perplexity.after },
    }
    console.log(JSON.stringify(row))
    rows.push(row)
  }
  const result = { text: 'wiki_demo.txt', windows: WINDOWS, tokens: LENGTH, rows }
  writeFileSync(join(import.meta.dirname, 'gguf-kld.json'), `${JSON.stringify(result, null, 1)}\n`)
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
