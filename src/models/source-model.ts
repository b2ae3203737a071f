import type { TemplateChoice } from '../../engine/text/template-choice.ts'
import type { ModelEntry } from './registry.ts'

/** What a job's row keeps of the model that it starts from. */
export interface SourceModel {
  id: string
  baseFolder: string
  root: string
  template?: string | TemplateChoice
}

/** An entry of the registry in the form that rows keep. */
export function sourceOf(entry: ModelEntry): SourceModel {
  return { id: entry.id, baseFolder: entry.baseFolder, root: entry.root, template: entry.template }
}
