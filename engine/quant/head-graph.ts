import type { OpenModel } from '../models/index.ts'
import { languageModelHead } from '../nn/decoder-layer.ts'
import { consecutivePositions } from '../nn/masks.ts'
import { ModelBuilder, TOKENS } from '../nn/model-builder.ts'
import { rmsNorm } from '../nn/norm.ts'
import { Session } from '../onnx/session.ts'
import { floatTensor, intTensor, type Tensor } from '../tensor.ts'
import type { WeightSource } from './weight-source.ts'

type Parameters = readonly { name: string; shape: readonly number[] }[]

/** The end of a model, final norm and a part of the output head, with their weights fed in. */
export class HeadGraph {
  private readonly session: Session
  private readonly output: string
  private readonly parameters: Parameters
  private readonly model: OpenModel
  /** Tokens of the vocabulary that one run gives logits of. */
  private readonly part: number

  private constructor(
    session: Session,
    output: string,
    parameters: Parameters,
    model: OpenModel,
    part: number,
  ) {
    this.session = session
    this.output = output
    this.parameters = parameters
    this.model = model
    this.part = part
  }

  static async create(model: OpenModel, part: number, threads = 0): Promise<HeadGraph> {
    const { weights } = model
    const table = tableOf(model)
    const entries = new Map(weights.entries)
    entries.set(table, { ...weights.entry(table), shape: [part, model.config.hiddenSize] })
    const config = { ...model.config, vocabSize: part }
    const builder = new ModelBuilder(weights.withEntries(entries), { trains: () => true })
    const hidden = builder.g.input('hidden', 'float32', [TOKENS, config.hiddenSize])
    const rows = builder.g.input('rows', 'int64', ['rows'])
    const normed = rmsNorm(builder, config, hidden, config.names.finalNorm, config.hiddenSize)
    const logits = languageModelHead(builder, config, normed, rows)
    const session = await Session.create(builder.g.finish([logits]), { threads })
    return new HeadGraph(session, logits.name, builder.trainables, model, part)
  }

  /** The weights for the tokens from `first` on; beyond the vocabulary's end they are 0. */
  load(source: WeightSource, first: number): Record<string, Tensor> {
    const { vocabSize, hiddenSize } = this.model.config
    const table = tableOf(this.model)
    const valuesOf = (name: string) => {
      if (name !== table) return source.readFloat32(name)
      const count = Math.min(this.part, vocabSize - first)
      const values = source.readRows(table, first, count)
      if (count === this.part) return values
      const filled = new Float32Array(this.part * hiddenSize)
      filled.set(values)
      return filled
    }
    return Object.fromEntries(
      this.parameters.map(({ name, shape }) => [name, floatTensor(valuesOf(name), shape)]),
    )
  }

  /** Logits [rows, part] of hidden states [rows, hidden]. */
  async logits(weights: Record<string, Tensor>, hidden: Float32Array): Promise<Float32Array> {
    const { hiddenSize } = this.model.config
    const rows = hidden.length / hiddenSize
    const results = await this.session.run({
      ...weights,
      input_ids: intTensor(new BigInt64Array(rows), [1, rows]),
      position_ids: consecutivePositions(1, rows),
      hidden: floatTensor(hidden, [rows, hiddenSize]),
      rows: intTensor(
        BigInt64Array.from({ length: rows }, (_, index) => BigInt(index)),
        [rows],
      ),
    })
    return results[this.output]!.data as Float32Array
  }

  release(): Promise<void> {
    return this.session.release()
  }
}

function tableOf({ config: { names, tieWordEmbeddings } }: OpenModel): string {
  return `${tieWordEmbeddings ? names.embedding : names.head}.weight`
}
