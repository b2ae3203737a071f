import { EngineError } from '../../engine/errors.ts'
import type { ModelAnswer, ModelAnswers, ModelCall } from './protocol.ts'
import type { RequestReader } from './request-reader.ts'

type Question<K extends ModelCall['kind']> = Extract<ModelCall, { kind: K }>

/** Answers questions about text and tokens. */
export class TextCalls {
  readonly #reader: RequestReader
  readonly #maxPositions: number

  constructor(reader: RequestReader, maxPositions: number) {
    this.#reader = reader
    this.#maxPositions = maxPositions
  }

  async answer(question: ModelCall): Promise<ModelAnswer> {
    switch (question.kind) {
      case 'tokenize':
        return this.#tokenize(question)
      case 'detokenize':
        return { text: this.#reader.tokenizer.decode(this.#reader.encode(question.tokens)) }
      case 'render':
        return this.#render(question)
      default:
        throw new EngineError('unsupported', 'unsupported_call', `${question.kind} is not supported.`)
    }
  }

  #tokenize({ text, addSpecialTokens }: Question<'tokenize'>): ModelAnswers['tokenize'] {
    const { tokenizer } = this.#reader
    const tokens = [...tokenizer.encode(text, { addSpecialTokens })]
    const texts = tokens.map((id) => Buffer.from(tokenizer.tokenBytes(id)).toString('utf8'))
    return { tokens, texts, maxPositions: this.#maxPositions }
  }

  #render({ addGenerationPrompt, ...input }: Question<'render'>): ModelAnswers['render'] {
    const { text } = this.#reader.render(input, addGenerationPrompt)
    return { text, tokens: [...this.#reader.tokenizer.encode(text)] }
  }
}
