import { join } from 'node:path'
import type { Job } from './types.ts'

export const RUN_LOG_FILE = 'running_log.txt'

/** A run's log lies in its folder, as LLaMA-Factory has it. Other jobs' folders appear only once complete. */
export function logFileOf({ kind, id, outputDir }: Job, saves: string): string {
  return kind === 'train' ? join(outputDir, RUN_LOG_FILE) : join(saves, 'logs', `${id}.txt`)
}
