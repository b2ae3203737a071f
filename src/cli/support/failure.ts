import { CommanderError } from 'commander'
import { type ErrorKind, messageOf } from '../../../engine/errors.ts'

/** Exit codes: 2 is the shell's convention for wrong usage, 130 the one for Ctrl-C. */
const FAILED = 1
const USAGE = 2
const CANCELLED = 130

/** What errors that were thrown on purpose look like (engine/errors.ts), also after they crossed a process. */
interface ExpectedError {
  kind: ErrorKind
  message: string
  param?: string | null
}

/** Words on the command line that make no sense; exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** Prints one error to stderr and returns the exit code for it. The stack appears only with ANNEAL_DEBUG=1. */
export function reportFailure(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE
  process.stderr.write(`anneal: ${describeFailure(error)}\n`)
  if (process.env.ANNEAL_DEBUG === '1' && error instanceof Error) {
    process.stderr.write(`${error.stack}\n`)
    if (error.cause !== undefined) process.stderr.write(`Caused by: ${String(error.cause)}\n`)
  }
  if (error instanceof UsageError) return USAGE
  return isExpected(error) && error.kind === 'cancelled' ? CANCELLED : FAILED
}

/** The error's message, with the field at fault where the message doesn't name it. */
export function describeFailure(error: unknown): string {
  if (error instanceof UsageError) return error.message
  if (isExpected(error)) {
    const { message, param } = error
    return param && !message.includes(param) ? `${message} (${param})` : message
  }
  const message = messageOf(error)
  return `unexpected error: ${message || 'unknown'}. ANNEAL_DEBUG=1 shows where it comes from.`
}

function isExpected(error: unknown): error is ExpectedError {
  return error instanceof Error && 'kind' in error && 'code' in error
}
