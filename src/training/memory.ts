import { freemem, totalmem } from 'node:os'
import { CPU_TRAITS, type DeviceTraits } from '../../engine/onnx/device.ts'
import { type Devices, type Placement, traitsOf } from '../device/devices.ts'

/** What the system and this server need beside a run. */
const RESERVED_BYTES = 512e6

/** What a run computes on, and the memory that it may take there. */
export interface RunCapacity {
  device: DeviceTraits
  availableBytes: number
}

/** A run's device once nothing else runs there. @throws EngineError when the device is absent. */
export async function capacityOf(devices: Devices, wanted: string): Promise<RunCapacity> {
  const device = await devices.traits(wanted)
  return { device, availableBytes: (await devices.capacity(wanted)) ?? memoryCapacity() }
}

/** A run's device as it is now; where the driver does not tell its memory, the machine's own has to do. */
export function capacityNow(placement: Placement | undefined): RunCapacity {
  const availableBytes = placement?.gpu?.freeBytes ?? memoryAvailable()
  return { device: placement ? traitsOf(placement) : CPU_TRAITS, availableBytes }
}

/** The most memory that a run could get on this machine or in this container, once nothing else runs. */
function memoryCapacity(): number {
  const limit = process.constrainedMemory?.() ?? 0
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem()
  return Math.max(0, total - RESERVED_BYTES)
}

/** The memory that is free now on this machine or in this container. */
export function memoryAvailable(): number {
  return process.availableMemory?.() ?? freemem()
}
