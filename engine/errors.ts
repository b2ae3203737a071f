/** What went wrong, in the terms that a caller can act on; HTTP statuses are mapped from it in one place. */
export type ErrorKind =
  | 'invalid' // the request or a file's content is wrong
  | 'unsupported' // right in form, but this engine does not do it
  | 'not_found'
  | 'conflict' // the state forbids it (non-empty output_dir, run already finished)
  | 'too_large' // would not fit in memory, on disk or in the context
  | 'refused' // policy
  | 'unavailable' // busy, loading or shutting down
  | 'cancelled'
  | 'internal'

/**
 * The error that every room throws on purpose: the message says what was wrong, which value, and what would be right.
 * `param` names the field at fault (dotted path); `code` is a stable snake_case identifier.
 */
export class EngineError extends Error {
  override readonly name = 'EngineError'
  readonly kind: ErrorKind
  readonly code: string
  readonly param: string | undefined

  constructor(
    kind: ErrorKind,
    code: string,
    message: string,
    options: { param?: string; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.kind = kind
    this.code = code
    this.param = options.param
  }
}

/** The message of whatever was thrown, which need not be an Error. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
