import type { Services } from '../routes/services.ts'
import { chatService } from './services/chat.ts'
import { completionService } from './services/completions.ts'
import type { ServiceContext } from './services/context.ts'
import { datasetService } from './services/datasets.ts'
import { type Evaluations, evaluationService } from './services/evaluations.ts'
import { type Exports, exportService } from './services/exports.ts'
import { fineTuningService } from './services/fine-tuning.ts'
import { hubService } from './services/hub.ts'
import { type Imports, importService } from './services/imports.ts'
import { type Merges, mergeService } from './services/merges.ts'
import { modelService } from './services/models.ts'
import { ollamaService } from './services/ollama.ts'
import { fileService } from './services/openai-files.ts'
import { authService, type ServerState, systemService } from './services/system.ts'
import { embeddingService, textService } from './services/text.ts'
import { type Training, trainingService } from './services/training.ts'

/** What the routes ask for, and what the command line may ask beyond that. */
export interface AppServices extends Services {
  training: Training
  merges: Merges
  exports: Exports
  imports: Imports
  evaluations: Evaluations
}

/** Every resource's service, over one context. */
export function createServices(context: ServiceContext, state: ServerState): AppServices {
  const training = trainingService(context)
  return {
    auth: authService(context.settings.server.apiKeys),
    training,
    datasets: datasetService(context),
    merges: mergeService(context),
    exports: exportService(context),
    imports: importService(context),
    hub: hubService(context),
    ollama: ollamaService(context),
    evaluations: evaluationService(context),
    files: fileService(context),
    fineTuning: fineTuningService(context, training),
    models: modelService(context),
    chat: chatService(context),
    completions: completionService(context),
    text: textService(context),
    embeddings: embeddingService(context),
    system: systemService(context, state),
  }
}
