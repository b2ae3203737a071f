import { createHash } from 'node:crypto'
import { Worker } from 'node:worker_threads'

/** SHA-256 of files that come block by block, one file after the other. */
export interface BlockHash {
  /** Takes the next block of the file, which must stay as it is until then. */
  update(block: Uint8Array): Promise<void>
  /** The digest of the file in lower-case hexadecimal; the next block begins another. */
  digest(): Promise<string>
  close(): Promise<void>
}

/** Hashes where it is called. */
export function hashHere(): BlockHash {
  let hash = createHash('sha256')
  return {
    async update(block) {
      hash.update(block)
    },
    async digest() {
      const digest = hash.digest('hex')
      hash = createHash('sha256')
      return digest
    },
    async close() {},
  }
}

/** Plain JavaScript, since a worker does not load TypeScript by itself. Answers each message in turn. */
const WORKER = `
const { parentPort } = require('node:worker_threads')
const { createHash } = require('node:crypto')
let hash = createHash('sha256')
parentPort.on('message', (block) => {
  if (block) hash.update(block)
  parentPort.postMessage(block ? '' : hash.digest('hex'))
  if (!block) hash = createHash('sha256')
})`

/** Hashes in a thread of its own; blocks must lie in shared memory. */
export function hashInThread(): BlockHash {
  const worker = new Worker(WORKER, { eval: true, execArgv: [], stderr: true })
  const waiting: { resolve(answer: string): void; reject(error: unknown): void }[] = []
  const fail = (error: unknown) => {
    for (const { reject } of waiting.splice(0)) reject(error)
  }
  worker.on('message', (answer: string) => waiting.shift()!.resolve(answer))
  worker.on('error', fail)
  worker.on('exit', () => fail(new Error('the thread that hashes has ended')))
  const ask = (block: Uint8Array | undefined) =>
    new Promise<string>((resolve, reject) => {
      waiting.push({ resolve, reject })
      worker.postMessage(block)
    })
  return {
    async update(block) {
      await ask(block)
    },
    digest: () => ask(undefined),
    async close() {
      await worker.terminate()
    },
  }
}
