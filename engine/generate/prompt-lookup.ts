/** So many of the last tokens must stand elsewhere before what follows there is guessed; more than the second add nothing. */
const SHORTEST_MATCH = 3
const LONGEST_MATCH = 8
/** Tokens of a first guess, and of one after guesses that came true. */
const FIRST_GUESS = 3
const LONGEST_GUESS = 15
/** Steps without a guess after many that were wrong. */
const LONGEST_REST = 64

const NOTHING = new Int32Array(0)

/**
 * Guesses the next tokens of answers that quote, extract or edit: those that followed the last tokens where they stood
 * before (prompt lookup decoding, A. Saxena 2023; "ngram" speculation in vLLM). One run checks them all, and reading the
 * weights once for several tokens costs little more than for one. Guesses that come true get longer; after wrong ones
 * there are none for a while, so that text which repeats nothing loses next to nothing.
 */
export class PromptLookup {
  readonly #prediction: Int32Array | undefined
  readonly #promptLength: number
  #length = FIRST_GUESS
  #misses = 0
  #rest = 0

  /** @param prediction what the caller expects the answer to be; it is looked up in place of the prompt and the answer. */
  constructor(promptLength: number, prediction?: Int32Array) {
    this.#promptLength = promptLength
    this.#prediction = prediction
  }

  /** What may follow `known`, the prompt and the answer so far; at most `most` tokens, and often none. */
  guess(known: Int32Array, most: number): Int32Array {
    const length = Math.min(this.#length, most)
    if (length <= 0 || this.#rest-- > 0) return NOTHING
    const source = this.#prediction ?? known
    const start = this.#isOnItsWay(known) ? known.length - this.#promptLength : continuationIn(source, known)
    return start === undefined ? NOTHING : source.subarray(start, start + length)
  }

  /** Whether the answer, too short to be looked up, is the beginning of the prediction. */
  #isOnItsWay(known: Int32Array): boolean {
    const answer = known.subarray(this.#promptLength)
    if (!this.#prediction || answer.length >= SHORTEST_MATCH) return false
    return answer.every((token, at) => token === this.#prediction![at])
  }

  /** Says how many tokens of the last guess came true, from its first one on. */
  checked(guessed: number, accepted: number): void {
    this.#misses = accepted > 0 ? 0 : this.#misses + 1
    this.#rest = accepted > 0 ? 0 : Math.min(LONGEST_REST, 2 ** this.#misses)
    this.#length = accepted === guessed ? Math.min(LONGEST_GUESS, 2 * this.#length) : FIRST_GUESS
  }
}

/** Where in `source` goes on what `known` ends with: after the longest match, the last one among equals. */
function continuationIn(source: Int32Array, known: Int32Array): number | undefined {
  const last = known.length - 1
  const end = source === known ? last - 1 : source.length - 2
  let best = SHORTEST_MATCH - 1
  let found: number | undefined
  for (let at = end; at >= best && best < LONGEST_MATCH; at--) {
    if (source[at] !== known[last]) continue
    let length = 1
    while (length < LONGEST_MATCH && length <= at && source[at - length] === known[last - length]) length++
    if (length <= best) continue
    best = length
    found = at + 1
  }
  return found
}
