import { join } from 'node:path'
import type { Job } from './types.ts'

/** A run's log lies in its folder, as LLaMA-Factory has it. Other jobs' folders appear only once complete. */
export function logFileOf({ kind, id, outputDir }: Job, saves: string): string {
  return kind === 'train' ? join(outputDir, 'running_log.txt') : join(saves, 'logs', `${id}.txt`)
}
