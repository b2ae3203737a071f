import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mergeAdapter } from '../../engine/adapter/merge.ts'
import { type LoraAdapter, readAdapter, writeAdapter } from '../../engine/adapter/peft.ts'
import { Decoder, type DecoderAdapter } from '../../engine/generate/decoder.ts'
import { CPU, type Device } from '../../engine/onnx/device.ts'
import { checkExpertAdapter } from './expert-adapter.ts'
import { bounded, type Check, exact, type Reference, relativeToLargest } from './reference.ts'
import { checkCurve, checkTraining, type TrainingPlace } from './training-checks.ts'

/** Of logits, over their range: float32's on every device, since arithmetic is float32 there too, in another order. */
export const LOGITS_BOUND = 1e-4
/**
 * Logits this close, over the largest, are equal but for rounding. Another device adds in another order, which may then
 * decide what is greedy there; on the CPU greedy tokens are exact.
 */
const TIE = 2e-6
/** Variants of LoRA that a folder may hold; all of them are trained, merged and answered with. */
const KINDS = ['plain', 'rslora', 'dora'] as const

export interface FamilyReport {
  readonly checks: readonly Check[]
  /** What the folder holds and the engine does not do yet. */
  readonly unsupported: readonly string[]
  readonly notes: readonly string[]
}

/** Runs every comparison that a tiny random model's folder allows. */
export async function checkFamily(
  reference: Reference,
  python: string | null,
  { device = CPU, fp16 = false }: Partial<TrainingPlace> = {},
): Promise<FamilyReport> {
  const base = join(reference.folder, 'model')
  const checks: Check[] = []
  const kinds = KINDS.filter((kind) => reference.has(`adapter-${kind}-start`))
  const decoder = await Decoder.load(base, { device })
  try {
    checks.push(bounded('base logits', await logitsError(decoder, reference, 'base.logits'), LOGITS_BOUND))
    checks.push(await (device.kind === 'cpu' ? greedyCheck : greedyButForTies)(decoder, reference))
    for (const kind of kinds)
      checks.push(...(await checkAdapter(decoder, reference, kind, { python, device })))
  } finally {
    await decoder.release()
  }
  if (python) checks.push(...(await checkExpertAdapter(base, python, LOGITS_BOUND)))
  for (const kind of kinds) checks.push(...(await checkTraining(reference, base, kind, { device, fp16 })))
  const { full_curve: curve } = reference.json
  if (curve) {
    const place = { device, fp16 }
    checks.push(...(await checkCurve('full', reference, base, { kind: 'full' }, curve, place)))
  }
  return {
    checks,
    unsupported: [],
    notes: python ? [] : ['PEFT did not load our adapters: no Python with peft (set JUDGE_PYTHON)'],
  }
}

async function logitsError(
  decoder: Decoder,
  reference: Reference,
  tensor: string,
  adapter?: DecoderAdapter,
): Promise<number> {
  const batch = reference.batch(0)
  const expected = reference.float(tensor)
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  let difference = 0
  for (let row = 0; row < batch.rows; row++) {
    const count = batch.rowLengths[row]!
    const start = row * batch.length
    const tokens = Int32Array.from(batch.inputIds.subarray(start, start + count), Number)
    const places = Array.from({ length: count }, (_, place) => place)
    const logits = await decoder.logitsAt(tokens, decoder.createCache(), places, adapter)
    for (let i = 0; i < logits.length; i++) {
      const value = expected[start * decoder.vocabSize + i]!
      low = Math.min(low, value)
      high = Math.max(high, value)
      const distance = Math.abs(logits[i]! - value)
      difference = Number.isNaN(distance) ? Number.POSITIVE_INFINITY : Math.max(difference, distance)
    }
  }
  return difference / (high - low)
}

function greedyReference(reference: Reference): { prompt: Int32Array; expected: readonly number[] } {
  const expected = reference.json.greedy_from_first_8_tokens_of_batch_0_row_0 ?? []
  return { prompt: Int32Array.from(reference.batch(0).inputIds.subarray(0, 8), Number), expected }
}

async function greedyCheck(decoder: Decoder, reference: Reference): Promise<Check> {
  const { prompt, expected } = greedyReference(reference)
  const actual = await greedyTokens(decoder, prompt, expected.length)
  return exact(`${expected.length} greedy tokens`, actual.join() === expected.join())
}

/** Follows the reference's tokens: each must be the greedy one, or as good as it. */
async function greedyButForTies(decoder: Decoder, reference: Reference): Promise<Check> {
  const { prompt, expected } = greedyReference(reference)
  const cache = decoder.createCache()
  let next = prompt
  let agree = 0
  for (const token of expected) {
    const logits = await decoder.forward(next, cache)
    const [low, high] = logits.reduce(([l, h], x) => [Math.min(l, x), Math.max(h, x)], [0, 0])
    const best = logits.reduce((largest, x) => Math.max(largest, x), Number.NEGATIVE_INFINITY)
    if (best - logits[token]! <= TIE * Math.max(-low, high)) agree++
    next = Int32Array.of(token)
  }
  cache.dispose()
  return exact(`${expected.length} greedy tokens but for ties within ${TIE}`, agree === expected.length)
}

/** Greedy continuation, one cached step a token. */
export async function greedyTokens(decoder: Decoder, prompt: Int32Array, count: number): Promise<number[]> {
  const cache = decoder.createCache()
  const tokens: number[] = []
  let next = prompt
  while (tokens.length < count) {
    const logits = await decoder.forward(next, cache)
    tokens.push(logits.reduce((best, value, id) => (value > logits[best]! ? id : best), 0))
    next = Int32Array.of(tokens.at(-1)!)
  }
  return tokens
}

/** PEFT's adapters read by us, ours read by PEFT, and merged weights. */
async function checkAdapter(
  decoder: Decoder,
  reference: Reference,
  kind: string,
  { python, device }: { python: string | null; device: Device },
): Promise<Check[]> {
  const checks: Check[] = []
  const folder = (end: string) => join(reference.folder, `adapter-${kind}-${end}`)
  for (const end of ['start', 'end']) {
    const error = await logitsError(
      decoder,
      reference,
      `${kind}.${end}.logits`,
      await decoder.loadAdapter(folder(end)),
    )
    checks.push(bounded(`${kind}: logits of PEFT's ${end} adapter`, error, LOGITS_BOUND))
  }
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-parity-'))
  try {
    const base = join(reference.folder, 'model')
    const copy = join(scratch, 'adapter')
    const adapter = readAdapter(folder('end'))
    await writeAdapter(copy, adapter)
    checks.push(
      exact(`${kind}: adapter rewritten and reread unchanged`, sameAdapter(adapter, readAdapter(copy))),
    )
    if (python) {
      const script = join(import.meta.dirname, 'judge-adapter.py')
      const tensor = `${kind}.end.logits`
      const output = execFileSync(python, [script, base, copy, reference.folder, tensor], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'ignore'],
      })
      const { error } = JSON.parse(output.trim().split('\n').at(-1)!) as { error: number }
      checks.push(bounded(`${kind}: our adapter loaded by PEFT`, error, LOGITS_BOUND))
    }
    const merged = join(scratch, 'merged')
    await mergeAdapter({ baseFolder: base, adapterFolder: folder('end'), outputFolder: merged })
    const mergedDecoder = await Decoder.load(merged, { device })
    const error = await logitsError(mergedDecoder, reference, `${kind}.merged.logits`)
    await mergedDecoder.release()
    checks.push(bounded(`${kind}: merged logits`, error, LOGITS_BOUND))
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
  return checks
}

function sameAdapter(left: LoraAdapter, right: LoraAdapter): boolean {
  if (left.modules.size !== right.modules.size) return false
  return [...left.modules].every(([path, { a, b, scale, magnitude }]) => {
    const other = right.modules.get(path)
    const same = (ours: Float32Array | undefined, theirs: Float32Array | undefined) =>
      ours === undefined ? theirs === undefined : relativeToLargest(theirs ?? [], ours) === 0
    return other?.scale === scale && same(a, other.a) && same(b, other.b) && same(magnitude, other.magnitude)
  })
}
