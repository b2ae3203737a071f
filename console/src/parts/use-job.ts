import { useEffect, useState } from 'preact/hooks'
import { followJob, get } from '../api.ts'
import type { TaskJob } from '../types.ts'
import { connected } from './connection.ts'

/** A merge, export or evaluation as it goes on; undefined while there is none. */
export function useJob<T extends TaskJob>(path: string | undefined): T | undefined {
  const [job, setJob] = useState<T>()
  useEffect(() => {
    setJob(undefined)
    if (path === undefined) return
    const refresh = () => get<T>(path).then(setJob, () => {})
    void refresh()
    return followJob(`${path}/events`, {
      event: () => void refresh(),
      connected: (up) => {
        connected.value = up
      },
      end: () => void refresh(),
    })
  }, [path])
  return job
}
