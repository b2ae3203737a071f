import { EngineError } from '../errors.ts'
import { createRandom } from '../random.ts'

export interface CalibrationOptions {
  /** Windows to cut (LLaMA-Factory's export_quantization_nsamples). */
  samples: number
  /** Tokens of each (export_quantization_maxlen). */
  length: number
  seed: number
}

/** Rows that are tried for one window before giving up, as LLaMA-Factory does. */
const TRIES = 100

/**
 * Cuts windows of exactly `length` tokens out of random texts that have more tokens than that. Equal seeds give equal
 * windows.
 *
 * @throws EngineError `invalid` with code calibration_too_short when no text is found that is long enough.
 */
export function calibrationWindows(
  texts: readonly string[],
  encode: (text: string) => Int32Array,
  { samples, length, seed }: CalibrationOptions,
): Int32Array[] {
  const random = createRandom(seed)
  const known = new Map<number, Int32Array>()
  const windows: Int32Array[] = []
  for (let tries = 0; windows.length < samples; ) {
    const row = random.nextInt(texts.length)
    const tokens = known.get(row) ?? encode(texts[row]!)
    known.set(row, tokens)
    if (tokens.length > length) {
      const start = random.nextInt(tokens.length - length)
      windows.push(tokens.slice(start, start + length))
      tries = 0
    } else if (++tries === TRIES) {
      const longest = Math.max(...[...known.values()].map((tried) => tried.length))
      throw new EngineError(
        'invalid',
        'calibration_too_short',
        'Cannot find satisfying example, considering decrease `export_quantization_maxlen`. ' +
          `${TRIES} random rows have at most ${longest} tokens; windows of ${length} need longer ones.`,
        { param: 'export_quantization_maxlen' },
      )
    }
  }
  return windows
}
