import { inspect } from 'node:util'

/** What is wrong with one field of a configuration. */
export interface Problem {
  kind: 'invalid' | 'unsupported'
  field: string
  message: string
}

export function invalid(field: string, message: string): Problem {
  return { kind: 'invalid', field, message }
}

export function unsupported(field: string, value: unknown, instead: string): Problem {
  return { kind: 'unsupported', field, message: `\`${field}\` = ${show(value)} is not supported. ${instead}` }
}

/** A value as a message quotes it: JSON, not too long. */
export function show(value: unknown): string {
  return clip(json(value))
}

/** JSON where there is one: YAML aliases can make a value that contains itself. */
export function json(value: unknown): string {
  try {
    return JSON.stringify(value) ?? inspect(value)
  } catch {
    return inspect(value)
  }
}

export function clip(text: string): string {
  return text.length > 80 ? `${text.slice(0, 77)}...` : text
}
