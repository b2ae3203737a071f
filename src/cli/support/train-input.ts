import { readFile } from 'node:fs/promises'
import { parse, YAMLParseError } from 'yaml'
import { EngineError } from '../../../engine/errors.ts'
import { UsageError } from './failure.ts'

/** How commands describe the words that this file reads. */
export const CONFIG_ARGUMENT =
  "a YAML file, key=value pairs, or both (the pairs win); LLaMA-Factory's field names"

/**
 * Reads a training configuration from the words of a command: at most one YAML (or JSON) file, then `key=value` pairs
 * that override it. Values stay text, which the configuration's own parser reads as number, boolean or list;
 * `key=` and `key=null` take a field of the file back.
 *
 * @throws UsageError for words of neither form, EngineError `not_found` or `invalid` for the file.
 */
export async function readTrainInput(words: readonly string[]): Promise<Record<string, unknown>> {
  const files = words.filter((word) => !isPair(word))
  if (files.length > 1) {
    throw new UsageError(
      `One configuration file at most, then key=value pairs; got ${files.map((file) => JSON.stringify(file)).join(' and ')}.`,
    )
  }
  const fromFile = files[0] === undefined ? {} : await readConfigFile(files[0])
  const pairs = words.filter(isPair).map(readPair)
  return Object.fromEntries([...Object.entries(fromFile), ...pairs])
}

/** A run's own configuration without its folder, so that repeating it neither resumes nor overwrites it. */
export async function readRepeated(file: string): Promise<Record<string, unknown>> {
  const { output_dir: _, overwrite_output_dir: _overwrite, ...config } = await readConfigFile(file)
  return { ...config, resume_from_checkpoint: null }
}

function isPair(word: string): boolean {
  return /^[A-Za-z_]\w*=/.test(word)
}

function readPair(word: string): [string, unknown] {
  const cut = word.indexOf('=')
  const value = word.slice(cut + 1)
  return [word.slice(0, cut), value === '' || value === 'null' ? null : value]
}

/** The fields of a YAML or JSON file. @throws EngineError `not_found` or `invalid`. */
export async function readConfigFile(file: string): Promise<Record<string, unknown>> {
  if (file.startsWith('-')) throw new UsageError(`Unknown option ${file}. Fields are given as key=value.`)
  const text = await readFile(file, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') {
      const hint = /\.(ya?ml|json)$/.test(file) ? '' : ' Fields are given as key=value.'
      throw new EngineError('not_found', 'config_not_found', `File ${file} not found.${hint}`, { cause })
    }
    throw new EngineError('invalid', 'config_unreadable', `${file} cannot be read: ${cause.message}`, {
      cause,
    })
  })
  const value = parseYaml(text, file)
  if (value === null) return {}
  if (typeof value === 'object' && !Array.isArray(value)) return value as Record<string, unknown>
  throw new EngineError('invalid', 'config_invalid', `${file} must hold fields, such as "stage: sft".`)
}

function parseYaml(text: string, file: string): unknown {
  try {
    return parse(text, { maxAliasCount: 100 })
  } catch (cause) {
    if (!(cause instanceof YAMLParseError) && !(cause instanceof ReferenceError)) throw cause
    const reason = cause.message.split('\n')[0]!.replace(/:$/, '')
    throw new EngineError('invalid', 'config_invalid', `${file} is no valid YAML: ${reason}.`, { cause })
  }
}
