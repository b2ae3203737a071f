import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../errors.ts'

/** config.json as it stands on disk, in transformers' older form or the one of version 5. */
export type RawConfig = Record<string, unknown> & { model_type: string }

/** Reads config.json of a Hugging Face folder. */
export function readRawConfig(folder: string): RawConfig {
  const path = join(folder, 'config.json')
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new EngineError(
      'not_found',
      'config_missing',
      `${path} cannot be read; a model folder needs a config.json`,
      {
        cause,
      },
    )
  }
  try {
    return z.looseObject({ model_type: z.string() }).parse(JSON.parse(content))
  } catch (cause) {
    throw new EngineError('invalid', 'config_malformed', `${path} is not a JSON object with a model_type`, {
      cause,
    })
  }
}

/** Validates `raw` with a family's schema; the error lists every wrong field. */
export function parseWith<T>(schema: z.ZodType<T>, raw: RawConfig): T {
  const result = schema.safeParse(raw)
  if (result.success) return result.data
  const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
  throw malformedConfig(raw, problems.join('; '))
}

export function malformedConfig(raw: RawConfig, problem: string): EngineError {
  return new EngineError('invalid', 'config_malformed', `config.json of ${raw.model_type}: ${problem}`)
}

/** The error for a variant that this engine does not compute; silence here would give wrong numbers. */
export function unsupportedField(
  raw: RawConfig,
  field: string,
  value: unknown,
  supported: string,
): EngineError {
  return new EngineError(
    'unsupported',
    'config_unsupported',
    `config.json of ${raw.model_type}: ${field} = ${JSON.stringify(value)} is not supported; ${supported}`,
    { param: field },
  )
}
