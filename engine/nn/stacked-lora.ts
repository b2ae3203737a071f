import type { GraphBuilder } from '../graph/builder.ts'
import type { Dim, Value } from '../graph/values.ts'
import type { LinearModule } from './linear-module.ts'

/** Ranks of all adapters that share a run, side by side. */
const RANKS = 'ranks'
/** The adapters that share a run, and before them the base. */
const SCALES = 'scales'

/**
 * The names of a module's adapter inputs: A stacked by rows [ranks, in], Bᵀ stacked by rows [ranks, out], and for DoRA
 * the scales of the outputs, one row for each adapter after a row of ones for the base [scales, out].
 */
export function stackedInputNames(path: string): { a: string; b: string; scale: string } {
  return { a: `${path}.stacked_lora_A`, b: `${path}.stacked_lora_B`, scale: `${path}.stacked_output_scale` }
}

/**
 * Any adapter for any row: the adapters of a run lie side by side along the rank, and `adapter_mask` [batch*seq, ranks]
 * is 1 where a row's own adapter stands and 0 elsewhere:
 * Σ_u mask_u ⊙ (x·A_uᵀ)·B_uᵀ = (mask ⊙ x·Aᵀ)·Bᵀ. A row without an adapter has no 1. What other rows use adds exact
 * zeros to a row's sums. Where a run has DoRA adapters, `scale_choice` [batch*seq, scales] picks each row's factors.
 */
export class StackedLora {
  readonly #g: GraphBuilder
  /** What says which adapter each row has: the mask, and with DoRA the choice of scales. */
  #perRow: readonly Value[]

  constructor(g: GraphBuilder, tokens: Dim, options: { scaled: boolean }) {
    this.#g = g
    const mask = g.input('adapter_mask', 'float32', [tokens, RANKS])
    this.#perRow = options.scaled ? [mask, g.input('scale_choice', 'float32', [tokens, SCALES])] : [mask]
  }

  /**
   * A linear module with the rows' adapters: c ⊙ (x·Wᵀ + x·Aᵀ·Bᵀ) + offset, where c is 1 without DoRA.
   * @param product x·Wᵀ + c
   */
  linear(x: Value, module: LinearModule, product: (c: Value) => Value, offset: Value | undefined): Value {
    const g = this.#g
    const [, choice] = this.#perRow
    if (!choice) return product(this.branch(x, module, offset))
    const scales = g.input(stackedInputNames(module.path).scale, 'float32', [SCALES, module.outFeatures])
    const scaled = g.Mul(product(this.branch(x, module, undefined)), g.Gemm(choice, scales))
    return offset ? g.Add(scaled, offset) : scaled
  }

  /** What the rows' adapters add, x·Aᵀ·Bᵀ, plus `offset`. */
  branch(x: Value, { path, inFeatures, outFeatures }: LinearModule, offset: Value | undefined): Value {
    const g = this.#g
    const names = stackedInputNames(path)
    const a = g.input(names.a, 'float32', [RANKS, inFeatures])
    const b = g.input(names.b, 'float32', [RANKS, outFeatures])
    return g.Gemm(g.Mul(g.Gemm(x, a, { transB: 1 }), this.#perRow[0]!), b, {}, offset)
  }

  /** Runs `body` for parts of the rows, where row i of all parts together is row `tokenOf[i]` of the batch. */
  overParts<T>(
    tokenOf: Value,
    split: (rows: Value) => readonly Value[],
    count: number,
    body: (part: number) => T,
  ): T[] {
    const whole = this.#perRow
    const parts = whole.map((rows) => split(this.#g.Gather(rows, tokenOf)))
    const results = Array.from({ length: count }, (_, part) => {
      this.#perRow = parts.map((each) => each[part]!)
      return body(part)
    })
    this.#perRow = whole
    return results
  }
}
