import { createHash } from 'node:crypto'
import { existsSync, renameSync, rmSync, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import type { OpenModel } from '../models/index.ts'
import { packBase } from '../quant/packed-base.ts'
import { openBase } from '../quant/source.ts'
import { WEIGHTS_FILE, WeightFolder } from '../weights/weight-folder.ts'
import type { ServedWeights } from './served-weights.ts'

/** Weights of a row that share a scale: with 64, 4 bits lose twice as much (docs/LOG.md). */
const BLOCK = 32

/**
 * A model folder ready to serve. A base that is to be quantized, or that comes quantized (GPTQ, AWQ), is packed once
 * into a folder below `packedFolder`; later loads map that file. Changed weights get a folder of their own.
 */
export async function openServedBase(
  folder: string,
  weights: ServedWeights,
  packedFolder: string,
): Promise<OpenModel> {
  const base = openBase(folder)
  if (weights === 'float32' && !base.quantization) return base
  const scheme = weights === 'float32' ? 'int8' : weights
  const packed = join(
    packedFolder,
    `${fingerprint(folder, base.weights)}-${base.quantization ? 'stored' : `${scheme}-${BLOCK}`}`,
  )
  if (!existsSync(join(packed, WEIGHTS_FILE))) {
    const temporary = `${packed}.${process.pid}`
    try {
      const made = await packBase(base, { scheme, folder: temporary, head: true, blockSize: BLOCK })
      made.weights.close()
      rmSync(packed, { recursive: true, force: true })
      renameSync(temporary, packed)
    } finally {
      rmSync(temporary, { recursive: true, force: true })
    }
  }
  return { ...base, folder: packed, weights: WeightFolder.open(packed) }
}

/** Changes when the folder's weights do. */
function fingerprint(folder: string, weights: WeightFolder): string {
  const files = [...new Set([...weights.entries.values()].map(({ file }) => file))]
  const stamps = files.map((file) => {
    const { size, mtimeMs, ino } = statSync(join(folder, file))
    return `${file}:${size}:${mtimeMs}:${ino}`
  })
  return createHash('sha256')
    .update([resolve(folder), ...stamps].join('\n'))
    .digest('hex')
    .slice(0, 16)
}
