import { freemem, totalmem } from 'node:os'
import type { Devices, Placement } from '../device/devices.ts'

/** What the system and this server need beside a run. */
const RESERVED_BYTES = 512e6

/** The most memory that a run could get on its device, once nothing else runs there. @throws EngineError when the device is absent. */
export async function capacityOf(devices: Devices, device: string): Promise<number> {
  return (await devices.capacity(device)) ?? memoryCapacity()
}

/** The memory that is free now on a run's device; where the driver does not tell, the machine's own has to do. */
export function memoryFree(placement: Placement | undefined): number {
  return placement?.gpu?.freeBytes ?? memoryAvailable()
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
