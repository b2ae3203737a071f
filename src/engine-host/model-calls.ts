import { EngineError } from '../../engine/errors.ts'
import type { AdapterCache } from '../../engine/generate/adapter-cache.ts'
import type { Encoder } from '../../engine/generate/encoder.ts'
import { MAX_TEXT_CHARACTERS } from '../../engine/text/encode-prompt.ts'
import { encodePieces } from '../../engine/text/pieces.ts'
import { showLogprobs } from './answer-stream.ts'
import type { ModelAnswer, ModelAnswers, ModelCall } from './protocol.ts'
import type { RequestReader } from './request-reader.ts'

type Question<K extends ModelCall['kind']> = Extract<ModelCall, { kind: K }>

/** Answers questions about text, its tokens, their likelihood and its vector. */
export class ModelCalls {
  readonly #reader: RequestReader
  readonly #encoder: Encoder
  readonly #maxPositions: number
  readonly #adapters: AdapterCache

  constructor(reader: RequestReader, encoder: Encoder, adapters: AdapterCache, maxPositions: number) {
    this.#reader = reader
    this.#adapters = adapters
    this.#encoder = encoder
    this.#maxPositions = maxPositions
  }

  async answer(question: ModelCall): Promise<ModelAnswer> {
    switch (question.kind) {
      case 'tokenize':
        return this.#tokenize(question)
      case 'detokenize':
        return { text: this.#reader.tokenizer.decode(this.#reader.encode(question.tokens, 'tokens')) }
      case 'render':
        return this.#render(question)
      case 'embed':
        return this.#embed(question)
      case 'score':
        return this.#score(question)
      case 'loadAdapter': {
        const wasLoaded = this.#adapters.has(question.adapterFolder)
        await this.#adapters.get(question.adapterFolder)
        return { wasLoaded }
      }
      case 'unloadAdapter':
        return { wasLoaded: this.#adapters.forget(question.adapterFolder) }
    }
  }

  #tokenize({ text, addSpecialTokens }: Question<'tokenize'>): ModelAnswers['tokenize'] {
    const { tokenizer } = this.#reader
    if (text.length > MAX_TEXT_CHARACTERS) {
      const message = `The text has ${text.length} characters; at most ${MAX_TEXT_CHARACTERS} are tokenized at once.`
      throw new EngineError('too_large', 'text_too_long', message, { param: 'prompt' })
    }
    const tokens = [...tokenizer.encode(text, { addSpecialTokens })]
    const texts = tokens.map((id) => Buffer.from(tokenizer.tokenBytes(id)).toString('utf8'))
    return { tokens, texts, maxPositions: this.#maxPositions }
  }

  #render({ addGenerationPrompt, ...input }: Question<'render'>): ModelAnswers['render'] {
    const { text, pieces } = this.#reader.render(input, addGenerationPrompt)
    return { text, tokens: [...encodePieces(pieces, this.#reader.tokenizer)] }
  }

  async #embed({ input, adapterFolder }: Question<'embed'>): Promise<ModelAnswers['embed']> {
    const tokens = this.#reader.encode(input, 'input')
    const { buffer } = await this.#encoder.embed(tokens, adapterFolder)
    return { vector: Buffer.from(buffer).toString('base64'), promptTokens: tokens.length }
  }

  async #score({ prompt, top, adapterFolder }: Question<'score'>): Promise<ModelAnswers['score']> {
    const { tokenizer } = this.#reader
    const tokens = this.#reader.encode(prompt, 'prompt')
    const scored = await this.#encoder.score(tokens, top, adapterFolder)
    const text = typeof prompt === 'string' ? prompt : tokenizer.decode(tokens)
    return { text, tokens: showLogprobs(scored, tokenizer) }
  }
}
