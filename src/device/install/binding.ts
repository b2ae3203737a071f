import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../../../engine/errors.ts'

/** The installed onnxruntime-node. */
export interface Binding {
  version: string
  /** The folder with libonnxruntime, beside which a provider library has to lie. */
  folder: string
  /** Such as linux/x64. */
  platform: string
}

/** The only platform with a CUDA library for Node.js. */
const CUDA_PLATFORM = 'linux/x64'

/** Finds the installed onnxruntime-node without loading it. */
export function installedBinding(): Binding {
  const main = createRequire(import.meta.url).resolve('onnxruntime-node')
  const root = resolve(dirname(main), '..')
  const manifest: unknown = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
  const { version } = z.object({ version: z.string() }).parse(manifest)
  const platform = `${process.platform}/${process.arch}`
  return { version, folder: join(root, 'bin/napi-v6', platform), platform }
}

/** @throws EngineError `unsupported` where no CUDA library exists. */
export function checkCudaPlatform({ platform }: Pick<Binding, 'platform'>): void {
  if (platform === CUDA_PLATFORM) return
  throw new EngineError(
    'unsupported',
    'cuda_platform',
    `CUDA runs on ${CUDA_PLATFORM} only; this is ${platform}. webgpu is the device for GPUs here, and needs no installation.`,
    { param: 'device' },
  )
}
