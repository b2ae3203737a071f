const JOB = /^ftjob-([0-9a-f]{12})$/

/** A fine-tuning job and its training run share their digits. */
export const jobIdOf = (runId: string) => runId.replace(/^run-/, 'ftjob-')

/** The training run of a fine-tuning job's id; undefined for another id. */
export function runIdOf(jobId: string): string | undefined {
  const digits = JOB.exec(jobId)?.[1]
  return digits && `run-${digits}`
}
