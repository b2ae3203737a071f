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
