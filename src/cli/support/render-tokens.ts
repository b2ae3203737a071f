import { styleText } from 'node:util'

/** One token of a rendered example, and whether the loss counts it. */
export interface ShownToken {
  text: string
  trained: boolean
}

/**
 * An example's text with the learned part marked: green in a terminal, between ⟦ and ⟧ elsewhere. Neighbouring tokens of one
 * kind are joined, so the marks show where the learned parts begin and end.
 */
export function renderTokens(tokens: readonly ShownToken[], inColour: boolean): string {
  const parts: ShownToken[] = []
  for (const { text, trained } of tokens) {
    const last = parts.at(-1)
    if (last?.trained === trained) last.text += text
    else parts.push({ text, trained })
  }
  return parts
    .map(({ text, trained }) => {
      if (inColour) return styleText(trained ? 'green' : 'gray', text)
      return trained ? `⟦${text}⟧` : text
    })
    .join('')
}
