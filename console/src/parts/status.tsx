import type { JobStatus } from '../types.ts'

export const isActive = (status: JobStatus) =>
  status === 'queued' || status === 'running' || status === 'cancelling'

export function Status({ status }: { status: JobStatus }) {
  return <span class={`status ${status}`}>{status}</span>
}
