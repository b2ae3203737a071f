import { randomBytes } from 'node:crypto'
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  renameSync,
  rmdirSync,
  rmSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { EngineError } from '../errors.ts'

/** `.name.partial-<process id>-<random>`, beside the folder that it will become. */
const PARTIAL = /^\..+\.partial-(\d+)-[0-9a-f]{8}$/
/** Folders that this process is filling now. */
const active = new Set<string>()

/**
 * Makes a folder appear whole or not at all: `fill` writes into a hidden sibling, whose files are made durable before it
 * gets its name. When `fill` throws or `signal` is aborted, nothing is left.
 *
 * @param neededBytes what the folder will hold, for the message when the disk is full.
 * @throws EngineError `conflict` when `folder` has contents, `cancelled`, `too_large` when the disk is full.
 */
export async function commitFolder<T>(
  folder: string,
  fill: (partial: string) => Promise<T>,
  signal?: AbortSignal,
  neededBytes?: number,
): Promise<T> {
  const target = resolve(folder)
  checkVacant(target)
  const parent = dirname(target)
  const suffix = `${process.pid}-${randomBytes(4).toString('hex')}`
  const partial = join(parent, `.${basename(target)}.partial-${suffix}`)
  active.add(partial)
  try {
    mkdirSync(parent, { recursive: true })
    sweepPartialFolders(parent)
    mkdirSync(partial)
    const result = await fill(partial)
    syncTree(partial)
    checkCancelled(signal)
    rename(partial, target)
    return result
  } catch (error) {
    const failure = diskError(error, parent, neededBytes) // first: removing the folder frees what it took
    rmSync(partial, { recursive: true, force: true })
    throw failure
  } finally {
    active.delete(partial)
  }
}

/** Makes a folder that is complete durable and gives it its name, which is on the same disk. */
export function publishFolder(complete: string, folder: string): void {
  syncTree(complete)
  rename(complete, resolve(folder))
}

function rename(complete: string, target: string): void {
  checkVacant(target)
  if (existsSync(target)) rmdirSync(target)
  renameSync(complete, target)
  syncFolder(dirname(target))
}

/** Removes what a killed process left half-written in `parent`; folders of living processes stay. */
export function sweepPartialFolders(parent: string): void {
  if (!existsSync(parent)) return
  for (const name of readdirSync(parent)) {
    const owner = PARTIAL.exec(name)?.[1]
    const path = join(parent, name)
    if (owner === undefined || active.has(path) || isAlive(Number(owner))) continue
    rmSync(path, { recursive: true, force: true })
  }
}

/** @throws EngineError `conflict` when something is at `folder` that a rename would lose. */
export function checkVacant(folder: string): void {
  if (!existsSync(folder) || isEmptyFolder(folder)) return
  throw new EngineError(
    'conflict',
    'output_not_empty',
    `${folder} exists and is not empty; choose another output folder or remove it first`,
  )
}

/** @throws EngineError `too_large` with both numbers when the disk of `folder` has less than `bytes` free. */
export function checkFreeSpace(folder: string, bytes: number): void {
  let existing = resolve(folder)
  while (!existsSync(existing)) existing = dirname(existing)
  const free = freeBytes(existing)
  if (bytes <= free) return
  throw new EngineError(
    'too_large',
    'disk_full',
    `${folder} needs ${bytes} bytes, but its disk has only ${free} free; free ${bytes - free} more or choose another`,
  )
}

/** @throws EngineError `cancelled` when `signal` is aborted. */
export function checkCancelled(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new EngineError('cancelled', 'cancelled', 'The job was cancelled.')
}

/** Writes a small file so that it is either the old one or the whole new one. @throws EngineError `too_large` when the disk is full. */
export function writeFileDurably(path: string, content: string | Uint8Array): void {
  const bytes = Buffer.from(content)
  const part = `${path}.part`
  try {
    const descriptor = openSync(part, 'w')
    try {
      for (let done = 0; done < bytes.length; ) done += writeSync(descriptor, bytes, done)
      fsyncSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
    renameSync(part, path)
    syncFolder(dirname(path))
  } catch (error) {
    rmSync(part, { force: true })
    throw diskError(error, dirname(path))
  }
}

/** Makes everything in a folder durable, and the names in it. */
export function syncTree(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name)
    if (entry.isDirectory()) syncTree(path)
    else syncPath(path, 'r+') // Windows flushes only what is open for writing
  }
  syncFolder(folder)
}

/** Makes the names in a folder durable. */
export function syncFolder(folder: string): void {
  // Windows cannot open folders; NTFS journals renames itself.
  if (process.platform !== 'win32') syncPath(folder, 'r')
}

function syncPath(path: string, flags: 'r' | 'r+'): void {
  const descriptor = openSync(path, flags)
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

function isEmptyFolder(path: string): boolean {
  try {
    return readdirSync(path).length === 0
  } catch {
    return false // a file
  }
}

function isAlive(processId: number): boolean {
  if (processId === process.pid) return false // of an earlier process with this id: ours are in `active`
  try {
    process.kill(processId, 0)
    return true
  } catch (error) {
    return errorCode(error) === 'EPERM'
  }
}

/** Bytes that may still be written to the disk of a folder that exists. */
function freeBytes(folder: string): number {
  const { bavail, bsize } = statfsSync(folder)
  return bavail * bsize
}

/**
 * The EngineError for a full or forbidden disk under `folder`; any other error as it is.
 *
 * @param neededBytes what was to be written in all, where that is known.
 */
export function diskError(error: unknown, folder: string, neededBytes?: number): unknown {
  const code = errorCode(error)
  if (code === 'disk_full' && neededBytes === undefined) return error // it says more than could be said here
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'disk_full') {
    const needed = neededBytes === undefined ? '' : `: ${neededBytes} bytes are needed in all`
    const message = `the disk of ${folder} is full${needed}, and ${freeBytes(folder)} are free now`
    return new EngineError('too_large', 'disk_full', message, { cause: error })
  }
  if (code === 'EACCES' || code === 'EROFS') {
    return new EngineError('invalid', 'output_not_writable', `${folder} cannot be written to`, {
      cause: error,
    })
  }
  return error
}

function errorCode(error: unknown): string | undefined {
  return error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
}
