import type { ModelTokenizer } from './tokenizer.ts'

/** A part of a text that is tokenized by itself; `token` is one token of the vocabulary, whatever the text around it. */
export type Piece = string | { readonly token: string }

/** The text of pieces. */
export function pieceText(pieces: readonly Piece[]): string {
  return pieces.map((piece) => (typeof piece === 'string' ? piece : piece.token)).join('')
}

/** Token ids of pieces, each tokenized apart; a token that the vocabulary lacks is read as text. */
export function encodePieces(
  pieces: readonly Piece[],
  tokenizer: Pick<ModelTokenizer, 'encode' | 'tokenId'>,
): Int32Array {
  const parts = pieces.map((piece) => {
    if (typeof piece === 'string') return piece === '' ? new Int32Array() : tokenizer.encode(piece)
    const id = tokenizer.tokenId(piece.token)
    return id === undefined ? tokenizer.encode(piece.token) : Int32Array.of(id)
  })
  return joinIds(parts)
}

/** Sequences of ids, one behind another. */
export function joinIds(parts: readonly Int32Array[]): Int32Array {
  if (parts.length === 1) return parts[0]!
  const whole = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0))
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}
