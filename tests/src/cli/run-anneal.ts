import { spawn } from 'node:child_process'
import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { tinyLlama } from '../engine-host/tiny-llama.ts'

const entry = resolve(import.meta.dirname, '../../../bin/anneal.js')

/** Folders of its own for a command under test, with a random model of a few kilobytes named anneal-tiny. */
export interface Workplace {
  root: string
  saves: string
  models: string
  data: string
  env: NodeJS.ProcessEnv
}

export function createWorkplace(): Workplace {
  const root = mkdtempSync(join(tmpdir(), 'anneal-cli-'))
  const [saves, models, data] = [join(root, 'saves'), join(root, 'models'), join(root, 'data')]
  cpSync(tinyLlama(), join(models, 'anneal-tiny'), { recursive: true })
  cpSync(resolve(import.meta.dirname, '../../../data'), data, {
    recursive: true,
    filter: (path) => !/[\\/](make|models)$/.test(path),
  })
  const env = { ANNEAL_MODELS_DIR: models, ANNEAL_SAVES_DIR: saves, ANNEAL_DATA_DIR: data }
  return { root, saves, models, data, env }
}

export interface Finished {
  code: number | null
  stdout: string
  stderr: string
}

/** Runs bin/anneal.js as a user would and waits for its end. `watch` sees what it has written to stderr so far. */
export async function anneal(
  words: string[],
  options: {
    env?: NodeJS.ProcessEnv
    input?: string
    watch?(stderr: string, kill: (signal: NodeJS.Signals) => void): void
  } = {},
): Promise<Finished> {
  const child = spawn(process.execPath, [entry, ...words], { env: { ...process.env, ...options.env } })
  const written = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    written.stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    written.stderr += text
    options.watch?.(written.stderr, (signal) => child.kill(signal))
  })
  child.stdin.end(options.input ?? '')
  const code = await new Promise<number | null>((done) => child.once('close', done))
  return { code, ...written }
}
