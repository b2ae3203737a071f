import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { EngineError } from '../../engine/errors.ts'

/** A GPU as NVIDIA's driver reports it. */
export interface Gpu {
  /** Its number here: its place among those that this process may see. */
  index: number
  uuid: string
  name: string
  driver: string
  totalBytes: number
  freeBytes: number
}

const FIELDS = ['uuid', 'driver_version', 'memory.total', 'memory.free', 'name'] as const
const TIME_LIMIT_MS = 20_000

/** Asks the driver for its GPUs; undefined where there is no nvidia-smi, or it fails and lists none. */
export async function listGpus(env: NodeJS.ProcessEnv = process.env): Promise<Gpu[] | undefined> {
  const options = [`--query-gpu=${FIELDS.join(',')}`, '--format=csv,noheader,nounits']
  const asked = promisify(execFile)('nvidia-smi', options, { timeout: TIME_LIMIT_MS, env })
  // it ends with an error when one of several GPUs is lost
  const { stdout, failed } = await asked.then(
    (output) => ({ ...output, failed: false }),
    ({ stdout: told = '' }: { stdout?: string }) => ({ stdout: told, failed: true }),
  )
  const gpus = parseGpus(stdout)
  return failed && gpus.length === 0 ? undefined : visibleGpus(gpus, env.CUDA_VISIBLE_DEVICES)
}

/** Reads nvidia-smi's table: one GPU a line, memory in MiB. Lines that tell no memory (a GPU that is lost) are left out. */
export function parseGpus(table: string): Gpu[] {
  return table.split('\n').flatMap((line, index) => {
    const [uuid = '', driver = '', total, free, ...name] = line.split(',').map((cell) => cell.trim())
    const [totalBytes, freeBytes] = [total, free].map((cell) => Number(cell || Number.NaN) * 2 ** 20)
    if (!/^(GPU|MIG)-/.test(uuid) || Number.isNaN(totalBytes! + freeBytes!)) return []
    return [{ index, uuid, name: name.join(', '), driver, totalBytes: totalBytes!, freeBytes: freeBytes! }]
  })
}

/**
 * The GPUs that CUDA_VISIBLE_DEVICES leaves, numbered as CUDA numbers them then: by their places in it, up to the first
 * entry that names none.
 */
export function visibleGpus(gpus: readonly Gpu[], visible: string | undefined): Gpu[] {
  if (visible === undefined) return [...gpus]
  const left: Gpu[] = []
  for (const entry of visible.split(',').map((word) => word.trim())) {
    const gpu = gpus.find(
      ({ index, uuid }) => String(index) === entry || (entry !== '' && uuid.startsWith(entry)),
    )
    if (gpu === undefined) break
    left.push({ ...gpu, index: left.length })
  }
  return left
}

/**
 * The GPUs that a run or a model may be placed on, the best first: the one that is named, or all by their free memory.
 * @throws EngineError `unsupported` for a number that no GPU has.
 */
export function placesOnGpus(gpus: readonly Gpu[], index?: number): Gpu[] {
  const named = gpus.filter((gpu) => gpu.index === (index ?? gpu.index))
  if (named.length === 0) throw noSuchGpu(gpus, index)
  return named.sort((a, b) => b.freeBytes - a.freeBytes || a.index - b.index)
}

function noSuchGpu(gpus: readonly Gpu[], index: number | undefined): EngineError {
  const there = gpus.map((gpu) => `cuda:${gpu.index} (${gpu.name})`).join(', ') || 'none'
  const wanted = index === undefined ? 'no GPU' : `no cuda:${index}`
  const message = `There is ${wanted} here. The driver reports: ${there}.`
  return new EngineError('unsupported', 'device_unavailable', message, { param: 'device' })
}
