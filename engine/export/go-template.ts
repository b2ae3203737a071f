import { THINK_CLOSE, THINK_OPEN } from '../text/reasoning.ts'
import type { TurnForm } from './turn-form.ts'

/**
 * A form as a template in Go's language (https://pkg.go.dev/text/template) over what Ollama gives it: `.System`, which holds
 * all system messages, `.Messages` and, of an answer, `.Thinking` (its template/template.go). An answer that comes last is
 * left open, so that the model goes on with it.
 *
 * @param bos what the runtime itself puts in front, so that it must not stand in the template.
 * @param reasons the model's answers may begin with a thought between <think> and </think>. Ollama tells by the template
 *   that it does, takes the thought out of the answer, and gives it back apart.
 */
export function goTemplate(form: TurnForm, { bos = '', reasons = false } = {}): string {
  const { start, system, answer, between, prompt, noThinking } = form
  const withoutBos = (text: string) => literal(text.startsWith(bos) ? text.slice(bos.length) : text)
  const shown = (head: string) => `${head}{{ $.System }}${literal(system?.after ?? '')}`
  const opening =
    system?.place === 'start'
      ? `{{ if .System }}${shown(withoutBos(system.before))}{{ else }}${withoutBos(start)}{{ end }}`
      : withoutBos(start)
  const atLast =
    system?.place === 'last' ? `{{ if and $last $.System }}${shown(literal(system.before))}{{ end }}` : ''
  const quiet =
    noThinking === '' ? '' : `{{ if and $.IsThinkSet (not $.Think) }}${literal(noThinking)}{{ end }}`
  const ending = literal(prompt) + quiet
  const after =
    ending === literal(answer) ? ending : `{{ if $last }}${ending}{{ else }}${literal(answer)}{{ end }}`
  const thought = reasons
    ? `{{ if and $last .Thinking }}${THINK_OPEN}\n{{ .Thinking }}\n${THINK_CLOSE}\n\n{{ end }}`
    : ''
  return (
    `${opening}{{ $asked := false }}{{ range $i, $_ := .Messages }}{{ $last := eq (len (slice $.Messages $i)) 1 }}` +
    `{{ if eq .Role "user" }}{{ if $asked }}${literal(between)}{{ end }}${atLast}{{ .Content }}${after}{{ $asked = true }}` +
    `{{ else if eq .Role "assistant" }}${thought}{{ .Content }}{{ end }}{{ end }}`
  )
}

/** What may begin an action, what ends a Modelfile's block, and characters that Ollama's reader of Modelfiles drops or turns. */
const SPECIAL = /\{+|"""|[^\P{C}\n\t]|[^\P{Z} ]/gu

/** Text as it stands in a template of a Modelfile. */
function literal(text: string): string {
  return text.replace(SPECIAL, (found) => `{{ ${quoted(found)} }}`)
}

/** A string of Go's language in ASCII. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(/[^\x20-\x7e]/gu, (character) => {
    const code = character.codePointAt(0)!.toString(16)
    return code.length > 4 ? `\\U${code.padStart(8, '0')}` : `\\u${code.padStart(4, '0')}`
  })
}
