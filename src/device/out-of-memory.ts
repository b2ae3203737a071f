import { EngineError } from '../../engine/errors.ts'
import { gigabytes } from '../../engine/units.ts'
import type { Placement } from './devices.ts'

/**
 * The answer to an allocation that failed in the runtime, with the numbers; other errors are returned as they are.
 * @param neededBytes what the estimate said, where there is one
 */
export function explainOutOfMemory(
  error: unknown,
  placement: Pick<Placement, 'name' | 'gpu'> | undefined,
  neededBytes?: number,
): unknown {
  if (!(error instanceof EngineError) || error.code !== 'device_out_of_memory') return error
  const { name = 'cpu', gpu } = placement ?? {}
  const had = gpu
    ? ` ${gpu.name} has ${gigabytes(gpu.totalBytes)}, of which ${gigabytes(gpu.freeBytes)} (${gpu.freeBytes} bytes) were free at the start.`
    : ''
  const needed =
    neededBytes === undefined ? '' : ` The estimate was ${gigabytes(neededBytes)} (${neededBytes} bytes).`
  const message =
    `${name} ran out of memory.${had}${needed} Use smaller batches or shorter sequences, gradient_checkpointing or ` +
    'quantization_bit; for a served model chat.weights, chat.kvBytes or chat.concurrent.'
  return new EngineError('too_large', 'device_out_of_memory', message, { param: 'device', cause: error })
}
