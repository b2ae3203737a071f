import { useEffect, useState } from 'preact/hooks'
import { keepReading } from './connection.ts'

export interface Resource<T> {
  value: T | undefined
  error: Error | undefined
  /** Reads it again. */
  refresh(): void
}

/** A resource of the API inside a component; read again every `everyMs`, and when `refresh` is called. */
export function useResource<T>(path: string | undefined, everyMs?: number): Resource<T> {
  const [value, setValue] = useState<T>()
  const [error, setError] = useState<Error>()
  const [round, setRound] = useState(0)
  // `round` is read by nobody: a refresh only has to start the effect anew.
  useEffect(() => {
    if (path === undefined) return
    setError(undefined)
    return keepReading<T>(path, { value: setValue, failed: setError }, everyMs)
  }, [path, everyMs, round])
  return { value, error, refresh: () => setRound((last) => last + 1) }
}
