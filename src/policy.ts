import { EngineError } from '../engine/errors.ts'
import type { Policy } from './settings.ts'

/** What the policy needs to know of the model that an export or a merge starts from. */
export interface PolicySubject {
  id: string
  /** Weights in the whole model. */
  parameters: number
  /** An adapter over a base: its weights are not merged. */
  isAdapter: boolean
  /** Its weights are already quantized. */
  isQuantized: boolean
}

const FULL_WIDTH = 16

/**
 * Decides whether a model may be exported at a width. Only the operator's config enters the decision; there is no
 * argument by which a request could lift it.
 *
 * @throws EngineError `refused` with the reason and what to do instead.
 */
export function checkExport(subject: PolicySubject, bits: number, policy: Policy): void {
  if (subject.isAdapter) {
    throw refused(
      'adapter_not_merged',
      `${subject.id} is an adapter over a base model. An export takes a whole model: merge the adapter first, ` +
        'then export the merge.',
      'model',
    )
  }
  if (subject.isQuantized) {
    throw refused(
      'already_quantized',
      `${subject.id} is quantized already. Exporting it anew would keep the errors it has and may add others; export the ` +
        'full-width model that it was made from.',
      'model',
    )
  }
  if (bits === FULL_WIDTH) return
  checkBits(bits, policy)
  if (subject.parameters < policy.minQuantizeParameters) {
    throw refused(
      'model_too_small',
      `${subject.id} has ${millions(subject.parameters)} parameters; models below ` +
        `${millions(policy.minQuantizeParameters)} are not exported at ${bits} bits, because so small a model ` +
        'loses too much of its quality and saves little memory. Export it at 16 bits instead, or start from a ' +
        'larger base model.',
      'bits',
    )
  }
}

/** Decides whether a model may be exported as an adapter. @throws EngineError `invalid` for a whole model. */
export function checkAdapterExport(subject: PolicySubject): void {
  if (subject.isAdapter) return
  throw new EngineError(
    'invalid',
    'not_an_adapter',
    `${subject.id} is a whole model and has no adapter of its own. Name a run or one of its checkpoints, or choose ` +
      'another format.',
    { param: 'model' },
  )
}

/**
 * Decides whether an adapter may be merged into its base.
 *
 * @throws EngineError `refused` when the base is quantized.
 */
export function checkMerge(base: PolicySubject): void {
  if (!base.isQuantized) return
  throw refused(
    'base_quantized',
    `${base.id} is quantized, and a quantized model takes no merge: the update would be rounded away. Merge into ` +
      'the full-width base model.',
    'model',
  )
}

function checkBits(bits: number, policy: Policy): void {
  if (policy.allowedBits.includes(bits)) return
  const reason = reasonAgainst(bits)
  const allowed = [...policy.allowedBits].sort((a, b) => a - b).join(', ')
  throw refused(
    'bits_not_allowed',
    `Exports of ${bits} bits are refused: ${reason}. Allowed: ${allowed}.`,
    'bits',
  )
}

function reasonAgainst(bits: number): string {
  if (bits < 4) return `${bits} bits leave a weight only ${2 ** bits} values, and answers become unreliable`
  if (bits > FULL_WIDTH) return `${FULL_WIDTH} is the full width; dtype chooses wider floats`
  return `no kernel of this engine reads ${bits}-bit weights`
}

function millions(parameters: number): string {
  return `${(parameters / 1e6).toFixed(1).replace(/\.0$/, '')} M`
}

function refused(code: string, message: string, param: string): EngineError {
  return new EngineError('refused', code, message, { param })
}
