import { EngineError } from '../errors.ts'

/** How the next token is drawn. Names and meanings are those of transformers' GenerationConfig and of vLLM. */
export interface SamplingParams {
  /** Divides the logits; 0 is greedy: the largest logit, the lowest id among equals. */
  temperature: number
  /** Keep the k most likely tokens; 0 or -1 keeps all. */
  topK: number
  /** Keep the smallest set of most likely tokens whose probability reaches this; 1 keeps all. */
  topP: number
  /** Drop tokens less likely than this fraction of the most likely one; 0 drops none. */
  minP: number
  /** Above 1 makes tokens of the prompt and of the answer less likely (Keskar et al. 2019, CTRL); 1 is off. */
  repetitionPenalty: number
  /** Subtracted from the logits of tokens that the answer holds already (OpenAI); 0 is off. */
  presencePenalty: number
  /** Subtracted from a token's logit once for each time that the answer holds it (OpenAI); 0 is off. */
  frequencyPenalty: number
}

/** What a request that says nothing gets: OpenAI's defaults, the model's distribution as it is. */
export const DEFAULT_SAMPLING: SamplingParams = {
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
}

interface Rule {
  param: string
  wants: string
  ok(value: number): boolean
}

const penalty = (param: string): Rule => ({
  param,
  wants: 'a number from -2 to 2',
  ok: (value) => value >= -2 && value <= 2,
})

const RULES: { [K in keyof SamplingParams]: Rule } = {
  temperature: { param: 'temperature', wants: 'a number from 0 to 100', ok: (v) => v >= 0 && v <= 100 },
  topK: {
    param: 'top_k',
    wants: 'a whole number, 0 or -1 for all',
    ok: (v) => Number.isInteger(v) && v >= -1,
  },
  topP: { param: 'top_p', wants: 'a number above 0 and at most 1', ok: (v) => v > 0 && v <= 1 },
  minP: { param: 'min_p', wants: 'a number from 0 to 1', ok: (v) => v >= 0 && v <= 1 },
  repetitionPenalty: { param: 'repetition_penalty', wants: 'a number above 0', ok: (v) => v > 0 && v < 1e6 },
  presencePenalty: penalty('presence_penalty'),
  frequencyPenalty: penalty('frequency_penalty'),
}

/**
 * Completes `asked` from `defaults` and checks every value.
 * @throws EngineError invalid, with `param` naming the field in its HTTP spelling.
 */
export function samplingParams(
  asked: Partial<SamplingParams>,
  defaults: SamplingParams = DEFAULT_SAMPLING,
): SamplingParams {
  const result = { ...defaults }
  for (const key of Object.keys(RULES) as (keyof SamplingParams)[]) {
    const value = asked[key] ?? defaults[key]
    const { param, wants, ok } = RULES[key]
    if (typeof value !== 'number' || !ok(value)) {
      throw new EngineError('invalid', 'invalid_value', `${param} is ${value}; it must be ${wants}.`, {
        param,
      })
    }
    result[key] = value
  }
  return result
}

/** Whether these settings always take the largest of the logits as they are. */
export function isPlainlyGreedy(params: SamplingParams): boolean {
  return (params.temperature === 0 || params.topK === 1) && !penalises(params)
}

/** Whether tokens seen before change the logits. */
export function penalises(params: SamplingParams): boolean {
  return params.repetitionPenalty !== 1 || params.presencePenalty !== 0 || params.frequencyPenalty !== 0
}
