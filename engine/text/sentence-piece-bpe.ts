const NORMAL = 1
const USER_DEFINED = 4

/**
 * The merges behind a SentencePiece BPE vocabulary, which keeps only scores: two neighbouring pieces merge when their
 * concatenation is a piece, the highest score first. Pairs that make the same piece are ordered by the ids of their
 * parts, as Hugging Face's converter does.
 */
export function mergesOfScores(
  tokens: readonly string[],
  scores: readonly number[],
  types: readonly number[],
): [string, string][] {
  const ids = new Map<string, number>()
  for (const [id, token] of tokens.entries()) {
    if (types[id] === NORMAL || types[id] === USER_DEFINED) ids.set(token, id)
  }
  const merges: { left: string; right: string; leftId: number; rightId: number; score: number }[] = []
  for (const [token, id] of ids) {
    for (let at = 1; at < token.length; at++) {
      const [left, right] = [token.slice(0, at), token.slice(at)]
      const [leftId, rightId] = [ids.get(left), ids.get(right)]
      if (leftId === undefined || rightId === undefined) continue
      merges.push({ left, right, leftId, rightId, score: scores[id]! })
    }
  }
  merges.sort((a, b) => b.score - a.score || a.leftId - b.leftId || a.rightId - b.rightId)
  return merges.map(({ left, right }) => [left, right])
}

const SPACE = '▁'

export interface SentencePieceVocabulary {
  tokens: readonly string[]
  scores: readonly number[]
  /** NORMAL, USER_DEFINED and others. */
  types: readonly number[]
  /** Id of the piece for what no piece covers. */
  unknown: number
  /** Whether a text begins with a space: no text does, every one, or (`once`) only the first of those between special tokens. */
  prefix: 'none' | 'always' | 'once'
  /** What no piece covers is spelled in bytes. */
  byteFallback: boolean
}

/** SentencePiece's BPE as the parts of a tokenizer.json, in the form that Llama 2's and Gemma's own have. */
export function sentencePieceParts(vocabulary: SentencePieceVocabulary): Record<string, unknown> {
  const { tokens, scores, types, unknown, prefix, byteFallback } = vocabulary
  const toSpace = { type: 'Replace', pattern: { String: ' ' }, content: SPACE }
  const fromSpace = { type: 'Replace', pattern: { String: SPACE }, content: ' ' }
  const prepend = prefix === 'always' ? [{ type: 'Prepend', prepend: SPACE }] : []
  const strip = prefix === 'none' ? [] : [{ type: 'Strip', content: ' ', start: 1, stop: 0 }]
  const first = { type: 'Metaspace', replacement: SPACE, prepend_scheme: 'first', split: false }
  return {
    normalizer: prefix === 'once' ? null : { type: 'Sequence', normalizers: [...prepend, toSpace] },
    pre_tokenizer: prefix === 'once' ? first : null,
    decoder: {
      type: 'Sequence',
      decoders: [fromSpace, { type: 'ByteFallback' }, { type: 'Fuse' }, ...strip],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: tokens[unknown],
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: byteFallback,
      ignore_merges: false,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: mergesOfScores(tokens, scores, types),
    },
  }
}
