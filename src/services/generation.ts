import { createHash } from 'node:crypto'
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import type { GenerationSettings, GenerationUsage } from '../../routes/generation-services.ts'
import type { FinishEvent, GenerateRequest } from '../engine-host/protocol.ts'
import { ADAPTER_WEIGHTS } from '../models/checkpoints.ts'
import { contextLength } from '../models/model-folder.ts'
import type { ModelEntry } from '../models/registry.ts'
import type { Settings } from '../settings.ts'

/** The settings of one choice as the engine's process takes them. Choice i draws from seed + i. */
export function generationSettings(settings: GenerationSettings, choice: number) {
  const { n: _, seed, ...rest } = settings
  return {
    ...rest,
    seed: seed === undefined ? undefined : seed + choice,
  } satisfies Partial<GenerateRequest>
}

/**
 * Refuses a request that could make more tokens than the operator allows, before anything is allocated for it.
 * @throws EngineError too_large 'too_many_tokens'.
 */
export function checkBudget(
  { limits }: Settings,
  model: ModelEntry,
  { n = 1, maxTokens }: GenerationSettings,
  prompts = 1,
): void {
  const context = Math.min(contextLength(model.baseFolder) ?? limits.contextTokens, limits.contextTokens)
  const each = Math.min(maxTokens ?? context, context)
  const total = n * prompts * each
  if (total <= limits.requestTokens) return
  const asked = prompts === 1 ? `${n} × ${each}` : `${prompts} × ${n} × ${each}`
  const message = `This request could make ${asked} = ${total} tokens; at most ${limits.requestTokens} are allowed. Lower n or max_tokens.`
  throw new EngineError('too_large', 'too_many_tokens', message, { param: n > 1 ? 'n' : 'max_tokens' })
}

/** Changes when the weights, the adapter or this version changes: what same-seed answers depend on. */
export function fingerprint({ baseFolder, adapterFolder }: ModelEntry, version: string): string {
  const files = [
    join(baseFolder, 'config.json'),
    ...(adapterFolder ? [join(adapterFolder, ADAPTER_WEIGHTS)] : []),
  ]
  const stamps = files.map((file) => {
    const info = statSync(file, { throwIfNoEntry: false })
    return `${file}:${info?.mtimeMs}:${info?.size}`
  })
  const hash = createHash('sha256')
    .update(JSON.stringify([version, stamps]))
    .digest('hex')
  return `fp_${hash.slice(0, 10)}`
}

/** Adds up what the choices of one request used; a prompt counts once however many answers it gets. */
export class UsageCounter {
  readonly #choicesPerPrompt: number
  readonly #isPredicted: boolean
  readonly usage: GenerationUsage = {
    promptTokens: 0,
    completionTokens: 0,
    cachedTokens: 0,
    reasoningTokens: 0,
    acceptedPredictionTokens: 0,
    rejectedPredictionTokens: 0,
  }

  /** @param isPredicted whether guesses come from a prediction; others are nobody's business. */
  constructor(choicesPerPrompt: number, isPredicted = false) {
    this.#choicesPerPrompt = choicesPerPrompt
    this.#isPredicted = isPredicted
  }

  add(choice: number, event: FinishEvent): void {
    this.usage.completionTokens += event.completionTokens
    this.usage.reasoningTokens += event.reasoningTokens
    const { tokens = 0, accepted = 0 } = (this.#isPredicted && event.guessed) || {}
    this.usage.acceptedPredictionTokens += accepted
    this.usage.rejectedPredictionTokens += tokens - accepted
    if (choice % this.#choicesPerPrompt !== 0) return
    this.usage.promptTokens += event.promptTokens
    this.usage.cachedTokens += event.cachedTokens
  }
}
