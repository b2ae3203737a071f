import type { EvaluationRequest } from '../../routes/schemas/evaluations.ts'

/** A model of an evaluation, with its ids resolved to folders. */
export interface EvaluatedModel {
  id: string
  baseFolder: string
  adapterFolder?: string
  template?: string
}

/** What tasks/evaluate.ts gets. */
export interface EvaluationTask {
  models: EvaluatedModel[]
  request: EvaluationRequest
  datasetDir: string
  /** How the child that answers loads its models. */
  engine: { threads: number; maxPositions: number }
}

/** Where a model's files lie in the evaluation's folder; a checkpoint's ':' is no letter for a file name everywhere. */
export function modelFolderName(id: string): string {
  return id.replaceAll(':', '_')
}
