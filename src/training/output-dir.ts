import { existsSync, realpathSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve, sep } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { TrainConfig } from '../../engine/train/config.ts'

export interface OutputOptions {
  config: Pick<TrainConfig, 'output_dir' | 'resume_from_checkpoint' | 'finetuning_type'>
  /** Id of the model that the run starts from. */
  modelId: string
  saves: string
  /** The operator's own terminal: any folder may be named, relative ones from the working directory. */
  trusted: boolean
}

/** What the saves directory holds beside runs. */
const RESERVED = [
  'merges',
  'exports',
  'evaluations',
  'fine-tuning',
  'files',
  'logs',
  'demo',
  'server.json',
  'anneal.db',
]

/**
 * The absolute output folder of a run; by default <model>/<finetuning_type>/train_<time> below the saves, as
 * LLaMA-Factory's web page names them.
 *
 * @throws EngineError `invalid` for a name that a client may not use: one that leads out of the saves directory.
 */
export function placeOutput({ config, modelId, saves, trusted }: OutputOptions): string {
  const { output_dir: named, resume_from_checkpoint: from } = config
  if (!trusted && typeof from === 'string' && !/^checkpoint-\d{1,12}$/.test(from)) throw badCheckpoint(from)
  if (named === undefined) {
    // A run may start from a checkpoint's id, whose ':' no file system likes.
    const model = modelId.replaceAll(/[^A-Za-z0-9._-]/g, '_')
    return unused(join(saves, model, config.finetuning_type, `train_${timestamp(new Date())}`))
  }
  return trusted ? resolve(named) : placeInside(named, saves)
}

function placeInside(named: string, saves: string): string {
  // LLaMA-Factory's files write the saves directory as part of the name.
  const parts = named.replace(/^saves\//, '').split('/')
  const isWrong = (part: string) => !/^[A-Za-z0-9_][A-Za-z0-9 ._+=@-]{0,127}$/.test(part)
  if (isAbsolute(named) || parts.some(isWrong) || RESERVED.includes(parts[0]!)) throw badOutput(named)
  const outputDir = join(saves, ...parts)
  const from = relative(realpathSync(saves), realpathSync(existing(outputDir)))
  if (from === '..' || from.startsWith(`..${sep}`) || isAbsolute(from)) throw badOutput(named)
  return outputDir
}

/** The folder itself or its nearest ancestor that exists: links in what exists could lead out. */
function existing(path: string): string {
  return existsSync(path) ? path : existing(dirname(path))
}

/** Two runs may be submitted within one second. */
function unused(folder: string): string {
  let candidate = folder
  for (let n = 2; existsSync(candidate); n++) candidate = `${folder}-${n}`
  return candidate
}

/** Y-m-d-H-M-S in local time. */
function timestamp(now: Date): string {
  const parts = [now.getMonth() + 1, now.getDate(), now.getHours(), now.getMinutes(), now.getSeconds()]
  return [now.getFullYear(), ...parts.map((value) => String(value).padStart(2, '0'))].join('-')
}

function badOutput(named: string): EngineError {
  const message =
    `output_dir ${JSON.stringify(named)} must be a relative name inside the saves directory, such as ` +
    `my-model/lora/first; not in ${RESERVED.join(', ')}.`
  return new EngineError('invalid', 'invalid_output_dir', message, { param: 'output_dir' })
}

function badCheckpoint(named: string): EngineError {
  const message =
    `resume_from_checkpoint ${JSON.stringify(named)} must be true, false or the name of a checkpoint in output_dir, ` +
    'such as checkpoint-100.'
  return new EngineError('invalid', 'invalid_checkpoint', message, { param: 'resume_from_checkpoint' })
}
