import { EngineError } from '../../errors.ts'

type Reader = (value: string) => number | boolean | undefined

const number: Reader = (value) => {
  const parsed = Number(value)
  return value.trim() === '' || !Number.isFinite(parsed) ? undefined : parsed
}
const boolean: Reader = (value) => {
  const word = value.toLowerCase()
  return word === 'true' || word === '1' ? true : word === 'false' || word === '0' ? false : undefined
}

/** What optim_args may set, by optimizer: transformers' name, ours, and how it is read. */
const ARGUMENTS: Readonly<Record<string, Readonly<Record<string, readonly [string, Reader]>>>> = {
  sgd: {
    momentum: ['momentum', number],
    dampening: ['dampening', number],
    nesterov: ['nesterov', boolean],
  },
  adafactor: {
    clip_threshold: ['clipThreshold', number],
    decay_rate: ['decayRate', number],
  },
}

/**
 * Reads transformers' optim_args, 'momentum=0.9,nesterov=true'.
 *
 * @throws EngineError `invalid` for what the optimizer has no such argument for, or a value that cannot be read.
 */
export function readOptimArgs(optim: string, text: string | undefined): Record<string, number | boolean> {
  const known = ARGUMENTS[optim] ?? {}
  const result: Record<string, number | boolean> = {}
  for (const part of (text ?? '').split(',').filter((piece) => piece.trim() !== '')) {
    const [name = '', value = ''] = part.split('=').map((side) => side.trim())
    const argument = Object.hasOwn(known, name) ? known[name] : undefined
    const parsed = argument?.[1](value)
    if (!argument || parsed === undefined) throw badArgument(optim, part, Object.keys(known))
    result[argument[0]] = parsed
  }
  return result
}

function badArgument(optim: string, part: string, known: readonly string[]): EngineError {
  const names =
    known.length === 0 ? 'it takes none' : `it takes ${known.map((name) => `${name}=VALUE`).join(', ')}`
  const message = `optim_args: ${JSON.stringify(part.slice(0, 80))} is nothing that ${optim} takes; ${names}`
  return new EngineError('invalid', 'invalid_optim_args', message, { param: 'optim_args' })
}
