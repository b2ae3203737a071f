import { GraphBuilder } from '../graph/builder.ts'
import { Session } from '../onnx/session.ts'
import { floatTensor } from '../tensor.ts'

/** aᵀ·b for float32 matrices [inner, rows] and [inner, columns], on the runtime's own matrix kernels. */
export class MatrixProduct {
  private readonly session: Session
  private readonly output: string

  private constructor(session: Session, output: string) {
    this.session = session
    this.output = output
  }

  static async create(threads = 0): Promise<MatrixProduct> {
    const g = new GraphBuilder()
    const a = g.input('a', 'float32', ['inner', 'rows'])
    const b = g.input('b', 'float32', ['inner', 'columns'])
    const product = g.Gemm(a, b, { transA: 1 })
    return new MatrixProduct(await Session.create(g.finish([product]), { threads }), product.name)
  }

  /** [rows, columns]. */
  async run(a: Float32Array, b: Float32Array, inner: number): Promise<Float32Array> {
    const result = await this.session.run({
      a: floatTensor(a, [inner, a.length / inner]),
      b: floatTensor(b, [inner, b.length / inner]),
    })
    return result[this.output]!.data as Float32Array
  }

  release(): Promise<void> {
    return this.session.release()
  }
}
