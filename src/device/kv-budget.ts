import { EngineError } from '../../engine/errors.ts'
import type { ServedWeights } from '../../engine/generate/served-weights.ts'
import { gigabytes } from '../../engine/units.ts'

/** What the runtime needs beside weights and cache: its context, workspaces, activations of a prompt's chunk. */
const WORKSPACE_BYTES = 700e6
/** Without a device's word, and where memory is the machine's own. */
const DEFAULT_BYTES = 2 ** 30
/** Fewer would answer one short request at a time. */
const LEAST_BYTES = 64 * 2 ** 20
/** What part of the rest caches may take; the allocator's gaps take some. */
const PART = 0.8

/** Bytes of a weight as it is served, scales included. */
const BYTES_A_WEIGHT: Record<ServedWeights, number> = { float32: 4, int8: 1.2, int4: 0.7 }

/** Bytes of a device that a served model takes beside its keys and values. */
export function servedBytes(parameters: number, weights: ServedWeights): number {
  return Math.round(parameters * BYTES_A_WEIGHT[weights]) + WORKSPACE_BYTES
}

/**
 * Memory for keys and values of a served model: what is configured; else, on a GPU whose free memory is known, most of what
 * the weights leave.
 *
 * @param freeBytes of the device; undefined where its memory is the machine's own or unknown
 * @throws EngineError `too_large` with the numbers where weights and cache do not fit.
 */
export function kvBudget(request: {
  configured: number | undefined
  freeBytes: number | undefined
  parameters: number
  weights: ServedWeights
}): number {
  const { configured, freeBytes, parameters, weights } = request
  if (freeBytes === undefined) return configured ?? DEFAULT_BYTES
  const loadedBytes = servedBytes(parameters, weights)
  const left = freeBytes - loadedBytes
  const least = configured ?? LEAST_BYTES
  const most = Math.floor(left * PART)
  if (least <= left) return configured ?? Math.max(least, most)
  const needed = loadedBytes + least
  const message =
    `Serving this model needs about ${gigabytes(needed)} (${needed} bytes) of GPU memory: ${gigabytes(loadedBytes - WORKSPACE_BYTES)} for weights as ` +
    `${weights}, ${gigabytes(least)} for keys and values; only ${gigabytes(freeBytes)} (${freeBytes} bytes) are free. ` +
    'Serve it with chat.modelWeights int8 or int4, lower chat.kvBytes, or give it another device (chat.modelDevices).'
  throw new EngineError('too_large', 'device_out_of_memory', message, { param: 'model' })
}
