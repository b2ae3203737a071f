import type { Token } from '../types.ts'

/** A text by its tokens, those that are learned marked; white space is shown as it is. */
export function Tokens({ tokens }: { tokens: readonly Token[] }) {
  const runs: { learned: boolean; text: string }[] = []
  for (const { text, trained } of tokens) {
    const last = runs.at(-1)
    if (last?.learned === trained) last.text += text
    else runs.push({ learned: trained, text })
  }
  return (
    <p class="tokens">
      {runs.map(({ learned, text }, index) =>
        learned ? <mark key={index}>{text}</mark> : <span key={index}>{text}</span>,
      )}
    </p>
  )
}
