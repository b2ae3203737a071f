import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** GPT-2's printable stand-ins for the 256 byte values, in byte order. */
function byteAlphabet(): string[] {
  const printable = (byte: number) =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255)
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++))
}

const special = (id: number, content: string) => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special: true,
})

const TOKENIZER = {
  version: '1.0',
  added_tokens: [special(256, '<|im_start|>'), special(257, '<|im_end|>')],
  normalizer: null,
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
  post_processor: null,
  decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
  model: {
    type: 'BPE',
    unk_token: null,
    vocab: Object.fromEntries(byteAlphabet().map((character, byte) => [character, byte])),
    merges: [],
  },
}

/** ChatML, the template that most tests render with. */
export const CHATML =
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"

/**
 * A temporary folder with a tokenizer whose 256 tokens are the bytes, plus <|im_start|> (256, bos) and <|im_end|> (257,
 * eos). `files` are written over it; keys of tokenizer_config.json are merged into the default ones.
 */
export function writeModelFolder(files: Record<string, Record<string, unknown>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-model-'))
  const config = { bos_token: '<|im_start|>', eos_token: '<|im_end|>', ...files['tokenizer_config.json'] }
  const all = { 'tokenizer.json': TOKENIZER, ...files, 'tokenizer_config.json': config }
  for (const [name, content] of Object.entries(all))
    writeFileSync(join(folder, name), JSON.stringify(content))
  return folder
}

/** The byte tokenizer with the ChatML template. */
export function byteTokenizerFolder(chatTemplate = CHATML): string {
  return writeModelFolder({ 'tokenizer_config.json': { chat_template: chatTemplate } })
}
