import type { TemplateChoice } from '../../engine/text/template-choice.ts'
import type { EvaluationRequest } from '../../routes/schemas/evaluations.ts'
import type { EngineHosts } from '../engine-host/client.ts'

/** A model of an evaluation, with its ids resolved to folders. */
export interface EvaluatedModel {
  id: string
  baseFolder: string
  adapterFolder?: string
  template?: string | TemplateChoice
}

/** What tasks/evaluate.ts gets. */
export interface EvaluationTask {
  models: EvaluatedModel[]
  request: EvaluationRequest
  datasetDir: string
  /** What the models are to answer on, as a setting says it. */
  device: string
  /** Bytes that the largest of them is expected to take there. */
  expectedBytes: number
  /** How the child that answers loads its models. */
  engine: { threads: number; maxPositions: number }
}

/** Progress of a job in several stages that take about the same time each. */
export interface Stages {
  /** Begins the next stage, of `total` rows; call the result with the rows that are done. */
  next(message: string, total: number): (done: number) => void
}

/** What evaluating one model works with. */
export interface ModelEvaluation {
  model: EvaluatedModel
  /** Where the model's rows and results go. */
  folder: string
  hosts: EngineHosts
  signal: AbortSignal
  stages: Stages
}

/** Where a model's files lie in the evaluation's folder; a checkpoint's ':' is no letter for a file name everywhere. */
export function modelFolderName(id: string): string {
  return id.replaceAll(':', '_')
}
