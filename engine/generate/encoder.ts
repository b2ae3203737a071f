import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readAdapter } from '../adapter/peft.ts'
import { type ServingModule, servingForm } from '../adapter/serving.ts'
import { EngineError } from '../errors.ts'
import type { Value } from '../graph/values.ts'
import type { OpenModel } from '../models/index.ts'
import { sequenceAttention } from '../nn/attention.ts'
import { languageModelHead } from '../nn/decoder-layer.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { causalMask, consecutivePositions } from '../nn/masks.ts'
import { ModelBuilder, TOKENS } from '../nn/model-builder.ts'
import type { Device } from '../onnx/device.ts'
import { Session } from '../onnx/session.ts'
import { readWeight } from '../packed/layout.ts'
import { floatTensor, intTensor, type Tensor } from '../tensor.ts'
import { type TokenLogprob, tokenLogprob } from './logprobs.ts'
import { openServedBase } from './served-base.ts'

/** Scores of a whole sequence against itself grow with its square, so longer inputs are refused. */
const MAX_ENCODED_TOKENS = 2048
/** Rows of logits that are computed at once: a row has as many numbers as the vocabulary. */
const HEAD_ROWS = 64

export interface EncoderOptions {
  device?: Device
  threads?: number
  maxTokens: number
  /** Where packed weights are kept, as the decoder's option of this name says. */
  packedFolder?: string
}

interface Compiled {
  session: Session
  /** Name of the one output. */
  output: string
}

interface Body extends Compiled {
  linears: readonly LinearModule[]
}

/**
 * Reads a whole text at once, for its vector or for the log-probabilities of its tokens. A session of its own beside the
 * decoder's: its weights stay mapped from their files, and it is compiled when it is first needed.
 */
export class Encoder {
  readonly #folder: string
  readonly #place: { device?: Device; threads: number }
  readonly #maxTokens: number
  readonly #packedFolder: string
  #model: Promise<OpenModel> | undefined
  #body: Promise<Body> | undefined
  #head: Promise<Compiled> | undefined

  /** Nothing is read yet. `maxTokens` at most MAX_ENCODED_TOKENS and the model's context. */
  constructor(folder: string, options: EncoderOptions) {
    this.#folder = folder
    const { device, threads = 0, packedFolder = join(tmpdir(), 'anneal-packed') } = options
    this.#packedFolder = packedFolder
    this.#place = device ? { device, threads } : { threads }
    this.#maxTokens = Math.min(options.maxTokens, MAX_ENCODED_TOKENS)
  }

  /**
   * The mean of the last hidden states, after the final norm, scaled to length 1; [hiddenSize].
   * @throws EngineError too_large 'context_length_exceeded'; invalid for no tokens; what reading the adapter throws.
   */
  async embed(tokens: Int32Array, adapterFolder?: string): Promise<Float32Array> {
    const hidden = await this.#hiddenStates(tokens, adapterFolder, 'input')
    const width = hidden.length / tokens.length
    const mean = new Float64Array(width)
    for (let at = 0; at < hidden.length; at++) mean[at % width]! += hidden[at]!
    const length = Math.sqrt(mean.reduce((sum, value) => sum + value * value, 0))
    return Float32Array.from(mean, (value) => (length === 0 ? 0 : value / length))
  }

  /**
   * How likely the model finds each token after those before it, with the `top` likeliest; the first, which has nothing
   * before it, has the log-probability 0 and no others.
   * @throws EngineError as embed does.
   */
  async score(tokens: Int32Array, top: number, adapterFolder?: string): Promise<TokenLogprob[]> {
    const hidden = await this.#hiddenStates(tokens, adapterFolder, 'prompt')
    this.#head ??= this.#compileHead()
    const { session, output } = await this.#head
    const width = hidden.length / tokens.length
    const scored: TokenLogprob[] = [{ id: tokens[0]!, logprob: 0, top: [] }]
    for (let start = 0; start < tokens.length - 1; start += HEAD_ROWS) {
      const count = Math.min(HEAD_ROWS, tokens.length - 1 - start)
      const rows = floatTensor(hidden.subarray(start * width, (start + count) * width), [count, width])
      const all = BigInt64Array.from({ length: count }, (_, row) => BigInt(row))
      const results = await session.run({
        hidden: rows,
        rows: intTensor(all, [count]),
        // Every graph has these inputs; this one reads their shape only.
        input_ids: intTensor(new BigInt64Array(count), [1, count]),
        position_ids: consecutivePositions(1, count),
      })
      const logits = results[output]!.data as Float32Array
      const vocabSize = logits.length / count
      for (let row = 0; row < count; row++) {
        const values = logits.subarray(row * vocabSize, (row + 1) * vocabSize)
        scored.push(tokenLogprob(values, tokens[start + row + 1]!, top))
      }
    }
    return scored
  }

  async release(): Promise<void> {
    await (await this.#body?.catch(() => undefined))?.session.release()
    await (await this.#head?.catch(() => undefined))?.session.release()
  }

  /** The hidden states after the final norm, [tokens, hiddenSize]. */
  async #hiddenStates(
    tokens: Int32Array,
    adapterFolder: string | undefined,
    param: string,
  ): Promise<Float32Array> {
    checkLength(tokens.length, this.#maxTokens, param)
    this.#body ??= this.#compileBody()
    const { session, linears, output } = await this.#body
    const results = await session.run({
      ...adapterFeeds(linears, await this.#readModules(linears, adapterFolder)),
      input_ids: intTensor(BigInt64Array.from(tokens, BigInt), [1, tokens.length]),
      position_ids: consecutivePositions(1, tokens.length),
      attention_mask: causalMask(tokens.length),
    })
    return results[output]!.data as Float32Array
  }

  async #readModules(
    linears: readonly LinearModule[],
    folder: string | undefined,
  ): Promise<ReadonlyMap<string, ServingModule>> {
    if (folder === undefined) return new Map()
    const { weights } = await this.#open()
    const read = (path: string) => readWeight(weights, `${path}.weight`)
    return servingForm(readAdapter(folder), linears, read, this.#folder)
  }

  async #compileBody(): Promise<Body> {
    const model = await this.#open()
    const builder = new ModelBuilder(model.weights, {
      lora: ({ path }) => ({ rank: `rank(${path})`, scale: 1, dropout: 0, magnitude: 'fed' }),
    })
    const attention = sequenceAttention(builder)
    const positions = Math.min(model.config.maxPositions, this.#maxTokens)
    const hidden = model.family.build(builder, model.config, { attention, positions })
    return { ...(await this.#compile(builder, hidden)), linears: builder.linears }
  }

  async #compileHead(): Promise<Compiled> {
    const { weights, config } = await this.#open()
    const builder = new ModelBuilder(weights, {})
    const hidden = builder.g.input('hidden', 'float32', [TOKENS, config.hiddenSize])
    const rows = builder.g.input('rows', 'int64', ['rows'])
    return this.#compile(builder, languageModelHead(builder, config, hidden, rows))
  }

  async #compile(builder: ModelBuilder, output: Value): Promise<Compiled> {
    const { folder } = await this.#open()
    const session = await Session.create(builder.g.finish([output]), {
      weightsFolder: folder,
      ...this.#place,
    })
    return { session, output: output.name }
  }

  /** The base as it is; one that comes quantized in the form that the decoder reads. */
  #open(): Promise<OpenModel> {
    this.#model ??= openServedBase(this.#folder, 'float32', this.#packedFolder)
    return this.#model
  }
}

function checkLength(length: number, limit: number, param: string): void {
  if (length === 0) {
    const message = `${param} has no tokens; at least one is needed.`
    throw new EngineError('invalid', 'empty_prompt', message, { param })
  }
  if (length > limit) {
    const message = `${param} has ${length} tokens; at most ${limit} can be read at once.`
    throw new EngineError('too_large', 'context_length_exceeded', message, { param })
  }
}

/** One A [rank, in], B [out, rank] and scale [out] per linear module; of rank 0 and 1 where the adapter has none. */
function adapterFeeds(
  linears: readonly LinearModule[],
  modules: ReadonlyMap<string, ServingModule>,
): Record<string, Tensor> {
  const feeds: Record<string, Tensor> = {}
  const nothing = new Float32Array(0)
  for (const { path, inFeatures, outFeatures } of linears) {
    const module = modules.get(path)
    const rank = module?.rank ?? 0
    const outputScale = module?.outputScale ?? new Float32Array(outFeatures).fill(1)
    const name = (part: string) => `base_model.model.${path}.${part}`
    feeds[name('lora_A.weight')] = floatTensor(module?.a ?? nothing, [rank, inFeatures])
    feeds[name('lora_B.weight')] = floatTensor(module?.b ?? nothing, [outFeatures, rank])
    feeds[name('output_scale')] = floatTensor(outputScale, [outFeatures])
  }
  return feeds
}
