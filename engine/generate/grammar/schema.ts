import { EngineError } from '../../errors.ts'

/** A JSON schema, or a part of one, as it was parsed. */
export type Schema = Readonly<Record<string, unknown>>

/** What is wrong at a place of a schema: `param` and then `problem` are the message. */
export function invalidSchema(param: string, problem: string): EngineError {
  return new EngineError('invalid', 'invalid_schema', `${param} ${problem}.`, { param })
}
