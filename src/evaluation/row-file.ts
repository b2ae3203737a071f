import { existsSync, readFileSync, truncateSync } from 'node:fs'
import { appendFile } from 'node:fs/promises'

/**
 * Finds a result for each item, several at a time, and appends it to a JSON-lines file in the items' order. Lines that
 * are there already are kept and their items skipped, so that a killed evaluation goes on where it was; half a line at
 * the end is cut off.
 *
 * @returns all results, in the items' order.
 */
export async function fillRows<T, R>(
  file: string,
  items: readonly T[],
  work: (item: T, index: number) => Promise<R>,
  options: { concurrency: number; signal: AbortSignal; onRow(done: number): void },
): Promise<R[]> {
  const results = readRows<R>(file).slice(0, items.length)
  const pending: Promise<R>[] = []
  options.onRow(results.length)
  let next = results.length
  try {
    while (results.length < items.length) {
      options.signal.throwIfAborted()
      while (pending.length < options.concurrency && next < items.length) {
        const promise = work(items[next]!, next)
        promise.catch(() => {}) // its turn to be awaited comes; until then a failure is not unhandled
        pending.push(promise)
        next++
      }
      const result = await pending.shift()!
      await appendFile(file, `${JSON.stringify(result)}\n`)
      results.push(result)
      options.onRow(results.length)
    }
  } finally {
    await Promise.allSettled(pending)
  }
  return results
}

function readRows<R>(file: string): R[] {
  if (!existsSync(file)) return []
  const content = readFileSync(file)
  const end = content.lastIndexOf(0x0a) + 1
  if (end < content.length) truncateSync(file, end)
  const lines = content.subarray(0, end).toString('utf8').split('\n').slice(0, -1)
  return lines.map((line) => JSON.parse(line) as R)
}
