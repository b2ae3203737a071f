import { EngineError, messageOf } from '../errors.ts'
import { type Device, formatDevice } from './device.ts'

/**
 * What a device says when its memory is used up, in onnxruntime's, Dawn's and CUDA's words. Dawn reports a buffer that it
 * could not make only where it is used, and one that no adapter of its kind could hold by the limit.
 */
const OUT_OF_MEMORY = new RegExp(
  [
    'out[ -]of[ -](device |host )?memory',
    'VK_ERROR_OUT_OF_(DEVICE|HOST)_MEMORY',
    'CUDA_ERROR_OUT_OF_MEMORY',
    'cudaErrorMemoryAllocation',
    'failed to allocate',
    'bad_alloc',
    'ALLOC_FAILED',
    'Available memory of \\d+ is smaller',
    'Invalid Buffer[^\\]]*\\] is invalid due to a previous error',
    'exceeds the max (storage )?buffer (binding )?size limit',
  ].join('|'),
  'i',
)
/** What it says when it is gone. */
const LOST =
  /device (was |is )?lost|fell off the bus|VK_ERROR_DEVICE_LOST|cudaErrorDevicesUnavailable|CUDA failure 46\b|has fallen off the bus/i
/** What it says when there is none, or its provider's library does not load. */
const ABSENT =
  /no supported adapters|failed to get a webgpu adapter|failed to load (shared )?library|no CUDA-capable device|cudaErrorNoDevice|CUDA driver version is insufficient|backend not found/i

/** The error for a graph that could not be loaded onto a device. */
export function creationError(device: Device, cause: unknown): EngineError {
  return (
    deviceError(device, cause) ??
    new EngineError(
      'internal',
      'session_create_failed',
      `the runtime refused the graph: ${messageOf(cause).trim()}`,
      { cause },
    )
  )
}

/** The error for a run that failed. */
export function runError(device: Device, cause: unknown): EngineError {
  return (
    deviceError(device, cause) ??
    new EngineError('internal', 'session_run_failed', `the runtime failed: ${messageOf(cause).trim()}`, {
      cause,
    })
  )
}

/** Errors that are the device's and not the graph's, which a caller can act on. */
function deviceError(device: Device, cause: unknown): EngineError | undefined {
  const name = formatDevice(device)
  const said = messageOf(cause).trim()
  if (OUT_OF_MEMORY.test(said)) {
    const message = `${name} has no memory left: ${said}`
    return new EngineError('too_large', 'device_out_of_memory', message, { param: 'device', cause })
  }
  if (LOST.test(said)) {
    const message = `${name} was lost during the work: ${said}`
    return new EngineError('unavailable', 'device_lost', message, { param: 'device', cause })
  }
  if (ABSENT.test(said)) {
    const message = `${name} is not available here: ${hint(device)} (${said})`
    return new EngineError('unavailable', 'device_unavailable', message, { param: 'device', cause })
  }
  return undefined
}

function hint({ kind }: Device): string {
  if (kind === 'cuda') {
    return "it needs an NVIDIA driver and onnxruntime's CUDA provider library, which 'anneal device install cuda' puts in place."
  }
  return 'it needs a GPU with a Vulkan driver (Linux: libvulkan.so.1), Metal or Direct3D 12.'
}
