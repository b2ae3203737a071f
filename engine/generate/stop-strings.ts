import { EngineError } from '../errors.ts'

/**
 * Watches a growing text for stop strings. Text that could be the beginning of one is held back, so nothing that is
 * handed out ever has to be taken back. The result does not depend on how the text is cut into pieces: the text ends
 * where the first stop string to be complete begins (the longest of those complete at the same character).
 */
export class StopMatcher {
  readonly #stops: readonly string[]
  #held = ''
  #stopped = false

  /** @throws EngineError invalid when a stop string is empty. */
  constructor(stops: readonly string[]) {
    if (stops.includes('')) {
      throw new EngineError(
        'invalid',
        'invalid_value',
        'stop holds an empty string; each needs a character.',
        {
          param: 'stop',
        },
      )
    }
    this.#stops = stops
  }

  /** True once a stop string was seen; nothing more comes out. */
  get stopped(): boolean {
    return this.#stopped
  }

  /** Takes the next piece and returns the text that is certain not to belong to a stop string. */
  push(piece: string): string {
    if (this.#stopped) return ''
    const text = this.#held + piece
    const end = this.#firstMatch(text)
    if (end !== undefined) {
      this.#stopped = true
      this.#held = ''
      return text.slice(0, end)
    }
    const held = this.#possibleBeginning(text)
    this.#held = text.slice(text.length - held)
    return text.slice(0, text.length - held)
  }

  /** The text held back, once no more can come. */
  end(): string {
    const rest = this.#held
    this.#held = ''
    return rest
  }

  /** Where the stop string begins that is complete first, the longest among equals. */
  #firstMatch(text: string): number | undefined {
    let start: number | undefined
    let end = Infinity
    for (const stop of this.#stops) {
      const at = text.indexOf(stop)
      if (at < 0) continue
      const stopEnd = at + stop.length
      if (stopEnd < end || (stopEnd === end && at < start!)) {
        start = at
        end = stopEnd
      }
    }
    return start
  }

  /** Length of the longest ending of `text` that begins a stop string. */
  #possibleBeginning(text: string): number {
    let longest = 0
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, text.length); length > longest; length--) {
        if (text.endsWith(stop.slice(0, length))) longest = length
      }
    }
    return longest
  }
}
