import type { TurnForm } from './turn-form.ts'

/**
 * A form as a Jinja template, as transformers, llama.cpp and others read it. It shows no tools and no thoughts, and
 * writes all system texts as one.
 */
export function jinjaForm({ start, system, answer, between, close, prompt, noThinking }: TurnForm): string {
  const shown = system ? `${put(system.before)}{{ system.text }}${put(system.after)}` : ''
  const atStart = system?.place === 'start'
  const head = atStart ? `{% if system.text %}${shown}{% else %}${put(start)}{% endif %}` : put(start)
  const atLast = system?.place === 'last' ? `{% if loop.last and system.text %}${shown}{% endif %}` : ''
  const quiet =
    noThinking === ''
      ? ''
      : `{% if enable_thinking is defined and not enable_thinking %}${put(noThinking)}{% endif %}`
  return (
    `{% set system = namespace(text='') %}{% set turns = namespace(asked=false) %}` +
    `{% for message in messages %}{% if message.role == 'system' %}{% set system.text = system.text ~ ('\\n\\n' if system.text else '') ~ message.content %}{% endif %}{% endfor %}` +
    `${head}{% for message in messages %}{% if message.role == 'assistant' %}{{ message.content }}{% if loop.last %}${put(close)}{% endif %}` +
    `{% elif message.role != 'system' %}{% if turns.asked %}${put(between)}{% endif %}{% set turns.asked = true %}` +
    `${atLast}{{ message.content }}{% if loop.last %}${put(prompt)}${quiet}{% else %}${put(answer)}{% endif %}{% endif %}{% endfor %}`
  )
}

/** Text as an expression, since what stands outside of one may be trimmed. */
function put(text: string): string {
  return text === '' ? '' : `{{ ${JSON.stringify(text)} }}`
}
