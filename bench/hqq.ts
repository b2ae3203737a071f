/**
 * npm run bench:hqq -- [--model FOLDER] [--tokens 2048] [--length 512] SPEC…
 *
 * What HQQ's half-quadratic solver (Badri and Shaji 2023, mobiusml.github.io/hqq_blog) leaves of a model, on wiki_demo.txt
 * against the checkpoint: why it is no method of exports (docs/QUANTIZATION.md). SPEC is SOLVER:BITS:GROUP, asymmetric, with
 *   rtn    scale and whole zero point of the range
 *   real   HQQ's zero point, a real number, which GPTQ's and ONNX's files have no place for
 *   whole  the same zero point rounded
 *   refit  that, and the scale of least squared error for the codes
 */
import { parseArgs } from 'node:util'
import { compareModels } from '../engine/export/compare.ts'
import { openModel } from '../engine/models/index.ts'
import { baseLinearModules, openBase } from '../engine/quant/source.ts'
import type { WeightSource } from '../engine/quant/weight-source.ts'
import { loadTokenizer } from '../engine/text/tokenizer.ts'
import { float16Bits, float16Value } from '../engine/weights/dtypes.ts'
import { realModelFolder } from './model-folder.ts'
import { TEXT_OPTIONS, wikiWindows } from './text-windows.ts'

/** w ≈ (q − zero) · scale */
interface Grid {
  readonly scale: number
  readonly zero: number
}
type Solver = (x: Float32Array, highest: number) => Grid

/** The published settings. */
const [NORM, BETA, KAPPA, ITERATIONS] = [0.7, 10, 1.01, 20]

const clamp = (code: number, highest: number) => Math.min(highest, Math.max(0, code))

/** The grid of the range, which holds 0, as engine/packed/int-blocks.ts has it. */
function rtn(x: Float32Array, highest: number): Grid {
  const [low, high] = [Math.min(0, ...x), Math.max(0, ...x)]
  const scale = (high - low) / highest
  return { scale, zero: scale > 0 ? Math.round(-low / scale) : 0 }
}

/**
 * min over z of |w − (q − z)·s|_p, p < 1, with s fixed: errors e are split into what the norm lets stand,
 *   kept = sign(e) · max(0, |e| − |e|^(p − 1) / β),
 * and a rest whose squares the mean z = mean(q − (w − kept) / s) makes least; β grows from step to step.
 */
function real(x: Float32Array, highest: number): Grid {
  const [low, high] = [Math.min(...x), Math.max(...x)]
  const scale = (high - low) / highest
  if (!(scale > 0)) return rtn(x, highest)
  let zero = Math.round(-low / scale)
  let best = { scale, zero }
  let least = Number.POSITIVE_INFINITY
  for (let i = 0, beta = BETA; i < ITERATIONS; i++, beta *= KAPPA) {
    const smallest = (1 / beta) ** (1 / (2 - NORM)) // of smaller errors nothing stands
    let [sum, error] = [0, 0]
    for (const w of x) {
      const q = clamp(Math.round(w / scale + zero), highest)
      const e = w - (q - zero) * scale
      const size = Math.abs(e)
      const kept = size > smallest ? Math.sign(e) * (size - size ** (NORM - 1) / beta) : 0
      sum += q - (w - kept) / scale
      error += size
    }
    if (error >= least) break
    least = error
    best = { scale, zero }
    zero = sum / x.length
  }
  return best
}

function whole(x: Float32Array, highest: number): Grid {
  const { scale, zero } = real(x, highest)
  return { scale, zero: clamp(Math.round(zero), highest) }
}

function refit(x: Float32Array, highest: number): Grid {
  const { scale, zero } = whole(x, highest)
  let [products, squares] = [0, 0]
  for (const w of x) {
    const q = clamp(Math.round(w / scale + zero), highest) - zero
    products += q * w
    squares += q * q
  }
  return products > 0 ? { scale: products / squares, zero } : { scale, zero }
}

const SOLVERS: Record<string, Solver> = { rtn, real, whole, refit }

const { values, positionals } = parseArgs({ allowPositionals: true, options: TEXT_OPTIONS })
const folder = realModelFolder(values.model)
const model = openModel(folder)
const head = `${model.config.names.head}.weight`
const columnsOf = new Map(
  baseLinearModules(openBase(folder)).map(({ path, inFeatures }) => [`${path}.weight`, inFeatures]),
)

/** The model with every linear module of the layers rounded, scales in float16. */
function rounded(solver: Solver, bits: number, group: number): WeightSource {
  const highest = 2 ** bits - 1
  return {
    readRows: (...part) => model.weights.readRows(...part),
    readFloat32(name) {
      const weights = model.weights.readFloat32(name)
      const columns = columnsOf.get(name)
      if (columns === undefined || name === head) return weights
      for (let row = 0; row < weights.length; row += columns) {
        for (let start = row; start < row + columns; start += group) {
          const x = weights.subarray(start, Math.min(start + group, row + columns))
          const { scale: exact, zero } = solver(x, highest)
          const scale = float16Value(float16Bits(exact))
          for (const [i, w] of x.entries()) {
            x[i] = scale > 0 ? (clamp(Math.round(w / scale + zero), highest) - zero) * scale : 0
          }
        }
      }
      return weights
    },
  }
}

const windows = wikiWindows(loadTokenizer(folder), Number(values.tokens), Number(values.length))
console.log(
  '| Spec | Perplexity before | after | Mean KLD | Same top token |\n| --- | --- | --- | --- | --- |',
)
for (const spec of positionals) {
  const [name, bits, group] = spec.split(':')
  const exported = rounded(SOLVERS[name!]!, Number(bits), Number(group))
  const { perplexity, meanKld, sameTop } = await compareModels({ model, exported, windows })
  const [before, after] = [perplexity.before, perplexity.after].map((value) => value.toFixed(2))
  console.log(`| ${spec} | ${before} | ${after} | ${meanKld.toFixed(4)} | ${(100 * sameTop).toFixed(1)} % |`)
}
model.weights.close()
