import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import { sep } from 'node:path'

/** Calls that change what is on the disk; the others are left alone. */
const CHANGING = [
  'mkdirSync',
  'renameSync',
  'rmSync',
  'rmdirSync',
  'writeSync',
  'fsyncSync',
  'ftruncateSync',
] as const
/** What an open flag is made of that lets the file be written. */
const WRITABLE = fs.constants.O_WRONLY | fs.constants.O_RDWR

class Death extends Error {
  override readonly name = 'Death'
}

// biome-ignore lint/suspicious/noExplicitAny: any function of node:fs takes its place
type AnyFunction = (...args: any[]) => any

/**
 * The disk as a process leaves it that is killed at its Nth change below a folder: that change happens by half (a write)
 * or not at all, and nothing that the process does afterwards reaches the disk, its cleaning up included.
 */
export class DoomedDisk {
  /** Changes so far. */
  changes = 0
  readonly #folder: string
  readonly #last: number
  readonly #failWith: NodeJS.ErrnoException | undefined
  readonly #descriptors = new Set<number>()
  readonly #real = new Map<string, AnyFunction>()

  /** @param failWith fails that one change with this error instead, and lets all others through. */
  constructor(folder: string, last: number, failWith?: NodeJS.ErrnoException) {
    this.#folder = folder + sep
    this.#last = last
    this.#failWith = failWith
  }

  /** Runs `work` on this disk; returns whether it got to its end. */
  async run(work: () => Promise<unknown>): Promise<boolean> {
    this.#install()
    try {
      await work()
      return true
    } catch {
      return false
    } finally {
      this.#restore()
    }
  }

  #install(): void {
    this.#replace('openSync', (path, flags, ...rest) => {
      const opensToWrite = typeof flags === 'number' ? flags & WRITABLE : /[wa+]/.test(String(flags))
      if (opensToWrite && this.#isMine(path)) this.#change(() => {})
      const descriptor = this.#call('openSync', path, flags, ...rest)
      if (opensToWrite && this.#isMine(path)) this.#descriptors.add(descriptor)
      return descriptor
    })
    for (const name of CHANGING) {
      this.#replace(name, (target, ...rest) => {
        const half = () => this.#writeHalf(target, rest[0], rest.slice(1))
        if (this.#isMine(target)) this.#change(name === 'writeSync' ? half : () => {})
        return this.#call(name, target, ...rest)
      })
    }
    this.#replace('write', (target, bytes, ...rest) => {
      if (this.#isMine(target)) this.#change(() => this.#writeHalf(target, bytes, rest))
      return this.#call('write', target, bytes, ...rest)
    })
    syncBuiltinESMExports()
  }

  #isMine(target: unknown): boolean {
    return typeof target === 'number'
      ? this.#descriptors.has(target)
      : String(target).startsWith(this.#folder)
  }

  #change(before: () => unknown): void {
    this.changes += 1
    if (this.changes < this.#last) return
    if (this.#failWith) {
      if (this.changes === this.#last) throw this.#failWith
      return
    }
    if (this.changes === this.#last) before()
    throw new Death()
  }

  #writeHalf(descriptor: number, bytes: Uint8Array, [offset = 0, length, position]: number[]): void {
    const half = Math.floor((length ?? bytes.length - offset) / 2)
    this.#call('writeSync', descriptor, bytes, offset, half, position)
  }

  #replace(name: string, by: AnyFunction): void {
    const table = fs as unknown as Record<string, AnyFunction>
    this.#real.set(name, table[name]!)
    table[name] = by
  }

  #call(name: string, ...args: unknown[]): number {
    return this.#real.get(name)!.apply(fs, args)
  }

  #restore(): void {
    Object.assign(fs, Object.fromEntries(this.#real))
    for (const descriptor of this.#descriptors) {
      try {
        fs.closeSync(descriptor)
      } catch {
        // closed by the work itself
      }
    }
    syncBuiltinESMExports()
  }
}
