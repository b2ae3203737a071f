import { EngineError } from '../errors.ts'
import { readJsonObject } from '../text/tokenizer-files.ts'
import { DEFAULT_SAMPLING, type SamplingParams, samplingParams } from './sampling-params.ts'

const FIELDS: { [K in keyof SamplingParams]: string } = {
  temperature: 'temperature',
  topK: 'top_k',
  topP: 'top_p',
  minP: 'min_p',
  repetitionPenalty: 'repetition_penalty',
  presencePenalty: 'presence_penalty',
  frequencyPenalty: 'frequency_penalty',
}

/**
 * The sampling that a model folder's authors recommend: generation_config.json's values over OpenAI's defaults, as vLLM
 * does it. `do_sample` is not looked at: files often leave it out, and a request that wants greedy says temperature 0.
 * @throws EngineError invalid 'malformed_file' when the file is no JSON object or a value is out of range.
 */
export function readSamplingDefaults(folder: string): SamplingParams {
  return completed(readRecommendedSampling(folder))
}

/** Only what generation_config.json says. @throws EngineError as readSamplingDefaults does. */
export function readRecommendedSampling(folder: string): Partial<SamplingParams> {
  const file = readJsonObject(folder, 'generation_config.json') ?? {}
  const found: Partial<SamplingParams> = {}
  for (const key of Object.keys(FIELDS) as (keyof SamplingParams)[]) {
    const value = file[FIELDS[key]]
    if (typeof value === 'number') found[key] = value
  }
  completed(found)
  return found
}

function completed(found: Partial<SamplingParams>): SamplingParams {
  try {
    return samplingParams(found, DEFAULT_SAMPLING)
  } catch (cause) {
    if (!(cause instanceof EngineError)) throw cause
    throw new EngineError('invalid', 'malformed_file', `generation_config.json: ${cause.message}`, { cause })
  }
}
