import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

const NAME = 'SmolLM2-135M-Instruct'

/** The real model that benchmarks run on: the given folder, or the shared one, unpacked once into the temp folder. */
export function realModelFolder(given?: string): string {
  if (given) return resolve(given)
  const unpacked = join(tmpdir(), 'anneal-bench', NAME)
  if (existsSync(join(unpacked, 'model.safetensors'))) return unpacked
  const script = resolve(import.meta.dirname, '../../shared/models/unpack.mjs')
  if (!existsSync(script)) {
    throw new Error(`no model: name a folder of ${NAME} with --model (there is no ${script} to unpack one)`)
  }
  execFileSync(process.execPath, [script, unpacked])
  return unpacked
}
