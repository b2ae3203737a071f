import { freemem, totalmem } from 'node:os'

/** What the system and this server need beside a run. */
const RESERVED_BYTES = 512e6

/** The most memory that a run could get on this machine or in this container, once nothing else runs. */
export function memoryCapacity(): number {
  const limit = process.constrainedMemory?.() ?? 0
  const total = limit > 0 ? Math.min(limit, totalmem()) : totalmem()
  return Math.max(0, total - RESERVED_BYTES)
}

/** The memory that is free now. */
export function memoryAvailable(): number {
  return process.availableMemory?.() ?? freemem()
}
