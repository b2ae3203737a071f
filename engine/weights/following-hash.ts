import { closeSync, openSync } from 'node:fs'
import { Worker } from 'node:worker_threads'

/** Plain JavaScript, since a worker does not load TypeScript by itself. It reads through the descriptor of its parent. */
const WORKER = `
const { parentPort, workerData: descriptor } = require('node:worker_threads')
const { createHash } = require('node:crypto')
const { readSync } = require('node:fs')
const hash = createHash('sha256')
const buffer = Buffer.allocUnsafeSlow(1 << 20)
let done = 0
parentPort.on('message', ({ end, isLast }) => {
  while (done < end) {
    const read = readSync(descriptor, buffer, 0, Math.min(buffer.length, end - done), done)
    if (read === 0) throw new Error('the file ends at byte ' + done + ' of ' + end)
    hash.update(buffer.subarray(0, read))
    done += read
  }
  if (!isLast) return
  parentPort.postMessage(hash.digest('hex'))
  parentPort.close()
})`

/** Takes the SHA-256 digest of a file while it is being written, in a thread of its own, out of the page cache. */
export class FollowingHash {
  readonly #descriptor: number
  readonly #worker: Worker
  readonly #digest: Promise<string>

  /** @param path a file that exists; it may get another name meanwhile. */
  constructor(path: string) {
    this.#descriptor = openSync(path, 'r')
    this.#worker = new Worker(WORKER, {
      eval: true,
      workerData: this.#descriptor,
      execArgv: [],
      stderr: true,
    })
    this.#digest = new Promise((resolve, reject) => {
      this.#worker.once('message', resolve)
      this.#worker.once('error', reject)
    })
    this.#digest.catch(() => {}) // whoever asks for the digest hears of it
    this.#worker.once('exit', () => closeSync(this.#descriptor))
  }

  /** Says that the bytes before `end` stand in the file for good. */
  advance(end: number): void {
    this.#worker.postMessage({ end, isLast: false })
  }

  /** The digest of the first `end` bytes, in lower-case hexadecimal. Nothing can be asked afterwards. */
  digest(end: number): Promise<string> {
    this.#worker.postMessage({ end, isLast: true })
    return this.#digest
  }

  /** Ends the thread of a file that will not be finished. */
  async abort(): Promise<void> {
    await this.#worker.terminate()
  }
}
