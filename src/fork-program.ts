import { type ChildProcess, type ForkOptions, fork } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { packageRoot } from './settings.ts'

/** Starts a module of this package in a process of its own, from the bundle where there is one (bin/program.js). */
export function forkProgram(entry: URL, options: ForkOptions): ChildProcess {
  // Not this process's own arguments: they may load what only it needs.
  return fork(join(packageRoot, 'bin/child.js'), [fileURLToPath(entry)], { execArgv: [], ...options })
}
