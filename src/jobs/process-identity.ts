import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ProcessIdentity } from './types.ts'

/** Who a process is, for rows that outlive it. Undefined when it is gone. */
export function identityOf(pid: number): ProcessIdentity | undefined {
  if (!exists(pid)) return undefined
  const startedAt = startOf(pid)
  return startedAt === undefined ? undefined : { pid, startedAt }
}

/** Whether exactly this process still runs, and not a later one with its id. */
export function isAlive(identity: { pid: number | null; startedAt: string | null }): boolean {
  if (identity.pid === null) return false
  return identityOf(identity.pid)?.startedAt === identity.startedAt
}

/** Ends a process that nobody listens to any more, and waits until it is gone. */
export async function killAndWait(identity: ProcessIdentity, timeoutMs = 10_000): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (isAlive(identity)) {
    if (Date.now() > deadline) throw new Error(`Process ${identity.pid} does not end.`)
    kill(identity.pid)
    await sleep(20)
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It ended by itself.
  }
}

function exists(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM'
  }
}

function startOf(pid: number): string | undefined {
  if (process.platform === 'linux') return linuxStart(pid)
  // Windows has no cheap way to ask; there the process id alone decides.
  if (process.platform === 'win32') return ''
  try {
    return execFileSync('ps', ['-o', 'lstart=', '-p', String(pid)], { encoding: 'utf8' }).trim() || undefined
  } catch {
    return undefined
  }
}

/** Clock ticks between the system's start and the process's (proc(5), field 22), with the id of this system start. */
function linuxStart(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z') return undefined
    return `${readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()}:${fields[19]}`
  } catch {
    return undefined
  }
}
