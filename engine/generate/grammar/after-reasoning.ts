import { THINK_CLOSE } from '../../text/reasoning.ts'
import type { ModelTokenizer } from '../../text/tokenizer.ts'
import type { TokenGrammar } from '../sequence.ts'

/** A grammar that binds only what follows the end of the reasoning; before it every token may come. */
export function afterReasoning<G extends TokenGrammar>(
  grammar: G,
  tokenizer: Pick<ModelTokenizer, 'tokenBytes'>,
): G {
  let tail = ''
  let thinking = true
  return {
    ...grammar,
    mask: () => (thinking ? undefined : grammar.mask()),
    accept(token: number) {
      if (!thinking) return grammar.accept(token)
      tail += Buffer.from(tokenizer.tokenBytes(token)).toString('latin1')
      thinking = !tail.includes(THINK_CLOSE)
      tail = tail.slice(-THINK_CLOSE.length)
    },
  }
}
