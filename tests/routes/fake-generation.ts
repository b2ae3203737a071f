import type {
  ChatEvent,
  ChatRequest,
  CompletionEvent,
  CompletionRequest,
} from '../../routes/generation-services.ts'
import { FakeError } from './fake-resources.ts'

const fakeUsage = {
  promptTokens: 7,
  completionTokens: 4,
  cachedTokens: 2,
  reasoningTokens: 1,
  acceptedPredictionTokens: 3,
  rejectedPredictionTokens: 5,
}

export class FakeCompletions {
  readonly requests: CompletionRequest[] = []

  async *complete(request: CompletionRequest): AsyncGenerator<CompletionEvent> {
    this.requests.push(request)
    yield { type: 'start', systemFingerprint: 'fp_test' }
    const count = request.prompts.length * (request.n ?? 1)
    for (let choice = 0; choice < count; choice++) {
      const logprob = { token: 'ab', bytes: [97, 98], logprob: -0.5, top: [{ token: 'ab', logprob: -0.5 }] }
      yield {
        type: 'text',
        choice,
        text: 'ab',
        ...(request.logprobs !== undefined && { logprobs: [logprob] }),
      }
      yield {
        type: 'text',
        choice,
        text: 'ab',
        ...(request.logprobs !== undefined && { logprobs: [logprob] }),
      }
      yield { type: 'finish', choice, reason: 'length' }
    }
    yield { type: 'usage', usage: fakeUsage }
  }
}

export class FakeText {
  async tokenize({ text }: { text: string }) {
    const texts = [...text]
    return { tokens: texts.map((character) => character.codePointAt(0)!), texts, maxPositions: 512 }
  }

  async detokenize({ tokens }: { tokens: number[] }) {
    return { text: String.fromCodePoint(...tokens) }
  }
}

export class FakeEmbeddings {
  async embed({ inputs }: { inputs: (string | number[])[] }) {
    const vector = Buffer.from(new Float32Array([0.6, 0.8]).buffer).toString('base64')
    return { vectors: inputs.map(() => vector), promptTokens: 3 * inputs.length }
  }
}

export class FakeChat {
  readonly requests: ChatRequest[] = []
  pieces = ['Hello', ', ', 'wörld ', '🌍']
  /** Events behind the pieces. */
  parts: ChatEvent[] = []
  /** Thrown before the start event, or after this many pieces. */
  failure: { error: unknown; afterPieces: number } | undefined
  /** Waits after the pieces until the client has gone. */
  hangs = false
  aborted = 0
  closed = 0

  async *complete(request: ChatRequest, signal: AbortSignal): AsyncGenerator<ChatEvent> {
    this.requests.push(request)
    try {
      if (this.failure?.afterPieces === 0) throw this.failure.error
      yield { type: 'start', systemFingerprint: 'fp_test' }
      for (const [index, text] of this.pieces.entries()) {
        if (this.failure?.afterPieces === index) throw this.failure.error
        yield { type: 'text', choice: 0, text }
      }
      for (const part of this.parts) yield part
      if (this.hangs) {
        await new Promise<void>((resolve) => {
          if (signal.aborted) resolve()
          signal.addEventListener('abort', () => resolve(), { once: true })
        })
        this.aborted += 1
        throw new FakeError('cancelled', 'cancelled', 'The client has gone.')
      }
      for (let choice = 0; choice < (request.n ?? 1); choice++)
        yield { type: 'finish', choice, reason: 'stop' }
      yield { type: 'usage', usage: fakeUsage }
    } finally {
      this.closed += 1
    }
  }

  async render(request: { messages: { content: string }[] }) {
    return { text: request.messages.map(({ content }) => content).join('\n'), tokens: [1, 2, 3] }
  }
}
