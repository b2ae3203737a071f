import type { WeightScheme } from '../packed/layout.ts'
import { roundTrip } from '../quant/round-trip.ts'
import { difference } from '../tensor.ts'
import { addProduct, rowNorms } from './merge.ts'
import type { LoraModule } from './peft.ts'
import { type PissaOptions, principalModule } from './pissa.ts'

export interface LoftqOptions extends PissaOptions {
  scheme: WeightScheme
  /** How often base and adapter are fitted to each other. */
  rounds: number
}

/**
 * LoftQ (Li et al. 2023, arXiv:2310.08659): a quantized base Q and an adapter that makes up for what quantization lost,
 *   Q ← quantize(W - scale·B·A);  scale·B·A ← the principal part of W - Q,
 * in turns, from B·A = 0. PEFT's loftq_config counts the same rounds; it leaves the scale out of the fit, which comes to
 * the same where alpha = r.
 *
 * @returns Q [rows, columns], and the adapter.
 */
export function loftqModule(
  weight: Float32Array,
  shape: readonly [number, number],
  options: LoftqOptions,
): { quantized: Float32Array; module: LoraModule } {
  const { scheme, rounds } = options
  const fit = { ...options, dora: false }
  let quantized = roundTrip(weight, shape, scheme)
  let module = principalModule(difference(weight, quantized), shape, fit)
  for (let round = 1; round < rounds; round++) {
    const rest = weight.slice()
    addProduct(rest, { ...module, scale: -module.scale })
    quantized = roundTrip(rest, shape, scheme)
    module = principalModule(difference(weight, quantized), shape, fit)
  }
  if (!options.dora) return { quantized, module }
  const adapted = quantized.slice()
  addProduct(adapted, module)
  return { quantized, module: { ...module, magnitude: Float32Array.from(rowNorms(adapted, shape[1])) } }
}
