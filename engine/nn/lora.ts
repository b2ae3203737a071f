import type { GraphBuilder } from '../graph/builder.ts'
import type { Dim, Value } from '../graph/values.ts'
import type { LinearModule } from './linear-module.ts'

/** An adapter's shape for one linear module; `rank` is a symbol where adapters of any rank may be fed. */
export interface LoraTarget {
  readonly rank: Dim
  /** alpha / rank, or alpha / √rank for rsLoRA; 1 where the caller has already scaled B. */
  readonly scale: number
  readonly dropout: number
  /**
   * DoRA: 'trained' learns a magnitude for each output and divides it by the row's norm; 'fed' takes that quotient as
   * an input, 1 for plain LoRA.
   */
  readonly magnitude?: 'trained' | 'fed' | undefined
}

/** Where an adapter finds its matrices and its dropout. */
export interface AdapterInputs {
  readonly g: GraphBuilder
  adapterInput(name: string, shape: readonly Dim[]): Value
  dropoutMask(module: LinearModule, rows: Dim): Value
}

/**
 * LoRA (arXiv:2106.09685): y = x·Wᵀ + s·(x·Aᵀ)·Bᵀ + offset; the offset and the sum ride in the products' C operand.
 * DoRA (arXiv:2402.09353): y = c ⊙ (x·Wᵀ + s·(x·Aᵀ)·Bᵀ) + offset with c = m / ‖W + s·B·A‖ by rows.
 *
 * @param x [rows, inFeatures]
 * @param base the frozen weight [outFeatures, inFeatures] and what is added to the result (bias, residual)
 */
export function adaptedLinear(
  m: AdapterInputs,
  x: Value,
  base: { weight: Value; offset: Value | undefined },
  module: LinearModule,
  target: LoraTarget,
): Value {
  const { g } = m
  const { weight, offset } = base
  const { path, inFeatures, outFeatures } = module
  const a = m.adapterInput(`base_model.model.${path}.lora_A.weight`, [target.rank, inFeatures])
  const b = m.adapterInput(`base_model.model.${path}.lora_B.weight`, [outFeatures, target.rank])
  const kept = target.dropout > 0 ? g.Mul(x, m.dropoutMask(module, x.shape[0]!)) : x
  const low = g.Gemm(kept, a, { transB: 1 })
  const branch = (c?: Value) => g.Gemm(low, b, { transB: 1, alpha: target.scale }, c)
  const product = (input: Value, c?: Value) => g.Gemm(input, weight, { transB: 1 }, c)
  if (!target.magnitude) return product(x, branch(offset))

  const factor =
    target.magnitude === 'fed'
      ? g.input(`base_model.model.${path}.output_scale`, 'float32', [outFeatures])
      : g.Div(m.adapterInput(`base_model.model.${path}.lora_magnitude_vector`, [outFeatures]), norm())
  const adapted = g.Mul(product(kept, branch()), factor)
  if (kept === x) return offset ? g.Add(adapted, offset) : adapted
  // As PEFT does: dropout acts on what the adapter changes, (c - 1)·x·Wᵀ + c·s·x·Aᵀ·Bᵀ, and not on the base's x·Wᵀ.
  return g.Add(product(x, offset), g.Sub(adapted, product(kept)))

  /** ‖W + s·B·A‖ of each row, [out]: a constant to the gradient (section 4.3 of the paper, and PEFT). */
  function norm(): Value {
    const sum = g.Gemm(b, a, { alpha: target.scale }, weight)
    return g.Detach(g.Sqrt(g.ReduceSum(g.Mul(sum, sum), [1], 0)))
  }
}
