import { EngineError } from '../errors.ts'

/** What a graph runs on, by onnxruntime's execution provider. */
const DEVICE_KINDS = ['cpu', 'webgpu', 'cuda'] as const
export type DeviceKind = (typeof DEVICE_KINDS)[number]

export interface Device {
  readonly kind: DeviceKind
  /** Which of several CUDA devices, as the driver counts them; 0 when left out. */
  readonly index?: number
  /** For tests: the CPU keeps tensors between runs as a GPU does, by the way that CUDA takes. */
  readonly keeps?: true
}

/** Whether tensors stay in its memory between runs; on the CPU it's no use, as its feeds are read in place. */
export function keepsTensors({ kind, keeps }: Device): boolean {
  return kind !== 'cpu' || keeps === true
}

/** Whether they do so by onnxruntime's C interface: the binding knows of WebGPU's memory alone. */
export function keepsNatively(device: Device): boolean {
  return device.kind !== 'webgpu' && keepsTensors(device)
}

export const CPU: Device = { kind: 'cpu' }

/** What a training step can do on a device, and what memory it takes there, depend on this. */
export interface DeviceTraits {
  readonly kind: DeviceKind
  /** It converts to float16 and back. WebGPU does where the adapter has 'shader-f16', which the self-test finds out. */
  readonly hasHalf: boolean
  /** It multiplies bfloat16 and adds up in float32. CUDA does on GPUs since Ampere, which the self-test finds out. */
  readonly multipliesBfloat16?: boolean
}

export const CPU_TRAITS: DeviceTraits = { kind: 'cpu', hasHalf: true }

/**
 * Reads 'auto', 'cpu', 'webgpu', 'cuda' or 'cuda:1'. 'auto' stays as it is: which device is best is found by selfTest.
 * @throws EngineError invalid 'invalid_device' for anything else.
 */
export function parseDevice(text: string): Device | 'auto' {
  if (text === 'auto') return text
  const [, kind, index] = /^(cpu|webgpu|cuda)(?::(\d{1,3}))?$/.exec(text) ?? []
  if (kind === undefined || (index !== undefined && kind !== 'cuda')) {
    throw new EngineError(
      'invalid',
      'invalid_device',
      `device is '${text}'; it must be auto, cpu, webgpu, cuda or, for one of several GPUs, cuda:N.`,
      { param: 'device' },
    )
  }
  return index === undefined ? { kind: kind as DeviceKind } : { kind: 'cuda', index: Number(index) }
}

/** 'cpu', 'webgpu', 'cuda' or 'cuda:1'; parseDevice reads it back. */
export function formatDevice({ kind, index }: Device): string {
  return index === undefined ? kind : `${kind}:${index}`
}
