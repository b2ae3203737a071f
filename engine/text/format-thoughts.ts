import type { Format } from './format.ts'

/** How a reasoning model's format is used: LLaMA-Factory's enable_thinking and preserve_thinking. */
export interface Thinking {
  /** True: answers without a thought learn an empty one. False: no thoughts, and an empty one stands in the question. */
  enabled: boolean
  /** Thoughts of earlier answers stay. */
  preserved: boolean
}

/** What stands for an answer without a thought. */
export function emptyThought({ thoughts = ['', ''], emptyThought: empty }: Format): string {
  return empty ?? thoughts[0] + thoughts[1]
}

/** An answer without its thoughts and the blank lines that they leave. */
export function withoutThought(content: string, { thoughts }: Format): string {
  if (thoughts === undefined) return content
  const [open, close] = thoughts
  let rest = ''
  let at = 0
  for (;;) {
    const start = content.indexOf(open, at)
    const end = start < 0 ? -1 : content.indexOf(close, start + open.length)
    if (end < 0) break
    rest += content.slice(at, start)
    at = end + close.length
  }
  return (rest + content.slice(at)).replace(/^\n+/, '')
}

/** Whether an answer shows a thought's mark, be it half of one. */
export function hasThought(content: string, { thoughts = ['', ''] }: Format): boolean {
  return thoughts.some((word) => content.includes(word.trim()))
}
