import { EngineError } from '../../engine/errors.ts'
import type { Placement } from './devices.ts'
import { gigabytes } from './gpus.ts'

/** How CUDA, cuBLAS, Dawn (WebGPU) and onnxruntime's allocators say that memory ran out. */
const OUT_OF_MEMORY =
  /out of memory|OUT_OF_MEMORY|ALLOC_FAILED|Failed to allocate memory|Available memory of \d+ is smaller|bad_alloc|out-of-memory/i

/**
 * The answer to an allocation that failed in the runtime, with the numbers; other errors are returned as they are.
 * @param neededBytes what the estimate said, where there is one
 */
export function explainOutOfMemory(
  error: unknown,
  placement: Pick<Placement, 'name' | 'gpu'> | undefined,
  neededBytes?: number,
): unknown {
  if (!(error instanceof EngineError) || error.kind !== 'internal' || !OUT_OF_MEMORY.test(error.message))
    return error
  const { name = 'cpu', gpu } = placement ?? {}
  const had = gpu
    ? ` ${gpu.name} has ${gigabytes(gpu.totalBytes)}, of which ${gigabytes(gpu.freeBytes)} (${gpu.freeBytes} bytes) were free at the start.`
    : ''
  const needed =
    neededBytes === undefined ? '' : ` The estimate was ${gigabytes(neededBytes)} (${neededBytes} bytes).`
  const message =
    `${name} ran out of memory.${had}${needed} Use smaller batches or shorter sequences, gradient_checkpointing or ` +
    'quantization_bit; for a served model chat.weights, chat.kvBytes or chat.concurrent.'
  return new EngineError('too_large', 'out_of_device_memory', message, { param: 'device', cause: error })
}
