import { isJsonObject, type JsonObject } from './tokenizer-files.ts'

/** How a vocabulary writes bytes that are no printable character: GPT-2's stand-ins, <0xE4> with ▁ for spaces, or not. */
export type VocabularyKind = 'byte_level' | 'byte_fallback' | 'raw'

/** Finds the kind of tokenizer.json's vocabulary from its model and its decoder. */
export function vocabularyKind({ model, decoder, pre_tokenizer }: JsonObject): VocabularyKind {
  const parts = JSON.stringify([decoder ?? null, pre_tokenizer ?? null])
  if (/"type":"ByteLevel"/.test(parts)) return 'byte_level'
  const fallback = isJsonObject(model) && model.byte_fallback === true
  return fallback || parts.includes('▁') || /"type":"Metaspace"/.test(parts) ? 'byte_fallback' : 'raw'
}

/** The bytes that one token of a vocabulary stands for in the middle of a text. `isAdded`: an added token is plain text. */
export function tokenBytes(text: string, kind: VocabularyKind, isAdded: boolean): Uint8Array {
  if (isAdded || kind === 'raw') return Buffer.from(text)
  if (kind === 'byte_level') return fromByteAlphabet(text)
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1]
  return byte === undefined
    ? Buffer.from(text.replaceAll('▁', ' '))
    : Uint8Array.of(Number.parseInt(byte, 16))
}

/** GPT-2's alphabet: printable Latin-1 characters stand for themselves, the other bytes for 256 and up, in order. */
const BYTES = new Map<number, number>()
for (let byte = 0, next = 256; byte < 256; byte++) {
  const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174
  BYTES.set(printable ? byte : next++, byte)
}

function fromByteAlphabet(text: string): Uint8Array {
  const bytes: number[] = []
  for (const character of text) {
    const byte = BYTES.get(character.codePointAt(0)!)
    if (byte === undefined) bytes.push(...Buffer.from(character))
    else bytes.push(byte)
  }
  return Uint8Array.from(bytes)
}
