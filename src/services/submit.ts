import type { ProcessIdentity } from '../jobs/types.ts'

/** What the command line may do and an HTTP client may not. */
export interface SubmitOptions {
  /** The process that will run the job itself; without it the server takes it from the queue. */
  owner?: ProcessIdentity
  /** The operator's own terminal: models and output folders may be paths. */
  trusted?: boolean
}
