import { resolve } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'
import type { Application } from '../../application.ts'
import { note } from './terminal.ts'
import { readConfigFile } from './train-input.ts'

/** A word that names one of LLaMA-Factory's files rather than a model. */
export const isConfigFile = (word: string | undefined): word is string => /\.(ya?ml|json)$/i.test(word ?? '')

/** Fields that say how LLaMA-Factory should do the same thing; any value is fine, and it is said that nothing is made of it. */
const WITHOUT_EFFECT = [
  'trust_remote_code',
  'infer_backend',
  'infer_dtype',
  'export_device',
  'finetuning_type',
]

/**
 * Reads one of LLaMA-Factory's files for another command than train (examples/merge_lora, examples/inference). Every field
 * that the command does not do is named, all at once.
 *
 * @throws EngineError `unsupported_option` with all such fields, `invalid` for values that are not text or numbers.
 */
export async function readCommandFile<F extends string>(
  file: string,
  fields: readonly F[],
  inert: Readonly<Record<string, readonly unknown[]>> = {},
): Promise<Partial<Record<F, string>>> {
  const given = Object.entries(await readConfigFile(file)).filter(([, value]) => value != null)
  const known = new Set<string>(fields)
  const refused = given.filter(
    ([name, value]) => !known.has(name) && !WITHOUT_EFFECT.includes(name) && !inert[name]?.includes(value),
  )
  if (refused.length > 0) {
    const list = refused.map(([name, value]) => `\`${name}\` = ${JSON.stringify(value)}`).join(', ')
    throw new EngineError('unsupported', 'unsupported_option', `${file}: this command does not do ${list}.`, {
      param: refused[0]![0],
    })
  }
  const ignored = given.map(([name]) => name).filter((name) => WITHOUT_EFFECT.includes(name))
  if (ignored.length > 0) note(`Without effect here: ${ignored.join(', ')}.`)
  const taken = given.filter(([name]) => known.has(name)).map(([name, value]) => [name, String(value)])
  return Object.fromEntries(taken)
}

/**
 * The run, or the checkpoint of one, whose adapter lies in a folder.
 *
 * @throws EngineError `not_found`.
 */
export async function runInFolder({ services, queue }: Application, folder: string): Promise<string> {
  const wanted = resolve(folder)
  for (const job of await queue.list({ kind: 'train' })) {
    if (resolve(job.outputDir) === wanted) return job.id
    const checkpoint = /^checkpoint-(\d+)$/.exec(wanted.slice(resolve(job.outputDir).length + 1))
    if (wanted.startsWith(resolve(job.outputDir)) && checkpoint) return `${job.id}:ckpt-step-${checkpoint[1]}`
  }
  const runs = (await services.training.list({ limit: 3 })).data.map(({ output_dir: dir }) => dir)
  const known = runs.length > 0 ? ` Runs lie in ${runs.join(', ')}.` : ''
  throw new EngineError('not_found', 'run_not_found', `No run of this store wrote ${folder}.${known}`, {
    param: 'adapter_name_or_path',
  })
}
