import type { EmbeddingService, TextService } from '../../routes/generation-services.ts'
import type { ServiceContext } from './context.ts'

/** Tokens of any model that the registry knows. */
export function textService({ models, hosts }: ServiceContext): TextService {
  return {
    async tokenize({ model, ...question }, signal) {
      const { baseFolder } = await models.resolve(model)
      return hosts.call(baseFolder, { kind: 'tokenize', ...question }, signal)
    },
    async detokenize({ model, tokens }, signal) {
      const { baseFolder } = await models.resolve(model)
      return hosts.call(baseFolder, { kind: 'detokenize', tokens }, signal)
    },
  }
}

/** Vectors of any model that the registry knows, one input after the other. */
export function embeddingService({ models, hosts, metrics }: ServiceContext): EmbeddingService {
  return {
    async embed({ model, inputs }, signal) {
      const { id, baseFolder, adapterFolder } = await models.resolve(model)
      const vectors: string[] = []
      let promptTokens = 0
      for (const input of inputs) {
        signal.throwIfAborted()
        const embedded = await hosts.call(baseFolder, { kind: 'embed', input, adapterFolder }, signal)
        vectors.push(embedded.vector)
        promptTokens += embedded.promptTokens
      }
      metrics.promptTokens.inc({ model_name: id }, promptTokens)
      return { vectors, promptTokens }
    },
  }
}
