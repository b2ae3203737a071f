import { signal } from '@preact/signals'
import { get, Unreachable } from '../api.ts'

/** Whether the server answered when it was last asked. */
export const connected = signal(true)

const RETRY_MS = 2_000

/** Reads a resource now and, where `everyMs` is given, again and again; keeps trying while the server is away. */
export function keepReading<T>(
  path: string,
  on: { value(value: T): void; failed(error: Error): void },
  everyMs?: number,
): () => void {
  let stopped = false
  let timer: number | undefined
  const read = async () => {
    let wait = everyMs
    try {
      const value = await get<T>(path)
      connected.value = true
      if (!stopped) on.value(value)
    } catch (error) {
      if (error instanceof Unreachable) {
        connected.value = false
        wait = RETRY_MS
      } else if (!stopped) on.failed(error as Error)
    }
    if (!stopped && wait !== undefined) timer = window.setTimeout(read, wait)
  }
  void read()
  return () => {
    stopped = true
    window.clearTimeout(timer)
  }
}
