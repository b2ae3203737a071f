import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type Gpu, listGpus } from './gpus.ts'
import { type Binding, installedBinding } from './install/binding.ts'
import { type InstalledProvider, inspectProvider } from './install/provider-files.ts'

/** Everything that decides whether CUDA can work here, and the first thing that WebGPU needs; cuda-problems.ts says what follows. */
export interface CudaFacts {
  binding: Pick<Binding, 'version' | 'platform'>
  provider: InstalledProvider
  /** As nvidia-smi lists them; undefined without it. */
  gpus: Gpu[] | undefined
  /** Whether the loader finds each of the libraries that onnxruntime asks for, by name. */
  libraries: Readonly<Record<string, boolean>>
}

/** The libraries of CUDA 13 that libonnxruntime_providers_cuda.so names (readelf -d) or opens by name. */
export const CUDA_LIBRARIES = {
  driver: 'libcuda.so.1',
  needed: ['libcudart.so.13', 'libcublas.so.13', 'libcublasLt.so.13', 'libcurand.so.10'],
  cudnn: 'libcudnn.so.9',
} as const
/** What WebGPU opens on Linux. */
export const VULKAN_LOADER = 'libvulkan.so.1'

/** Looks at the library, the driver and CUDA's own libraries, without loading any. */
export async function probeCuda(
  binding: Binding = installedBinding(),
  env: NodeJS.ProcessEnv = process.env,
): Promise<CudaFacts> {
  const { driver, needed, cudnn } = CUDA_LIBRARIES
  const [provider, gpus, cache] = await Promise.all([inspectProvider(binding), listGpus(env), loaderCache()])
  const folders = [...(env.LD_LIBRARY_PATH ?? '').split(':').filter(Boolean), binding.folder]
  const isFound = (name: string) =>
    cache.has(name) || folders.some((folder) => existsSync(join(folder, name)))
  const libraries = Object.fromEntries(
    [driver, ...needed, cudnn, VULKAN_LOADER].map((name) => [name, isFound(name)]),
  )
  const { version, platform } = binding
  return { binding: { version, platform }, provider, gpus, libraries }
}

/** The names that the dynamic loader's cache holds. */
async function loaderCache(): Promise<Set<string>> {
  for (const program of ['ldconfig', '/sbin/ldconfig']) {
    try {
      const { stdout } = await promisify(execFile)(program, ['-p'], { maxBuffer: 64 << 20 })
      return new Set([...stdout.matchAll(/^\s*(\S+) \(/gm)].map(([, name]) => name!))
    } catch {
      // not on the path, or another libc's
    }
  }
  return new Set()
}
