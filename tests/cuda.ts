import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync } from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { decode, load } from 'koffi'
import { messageOf } from '../engine/errors.ts'
import { GraphBuilder } from '../engine/graph/builder.ts'
import { Session } from '../engine/onnx/session.ts'
import { CUDA_LIBRARIES } from '../src/device/cuda-facts.ts'
import { installedBinding } from '../src/device/install/binding.ts'
import { PROVIDER_FILES } from '../src/device/install/known-providers.ts'

export const CUDA = { kind: 'cuda' } as const

export interface CudaForTests {
  /** A suffix for titles of tests that are skipped, and why; empty where sessions on CUDA can be made. */
  readonly missing: string
  /** Whether there is a GPU. Without one, no-gpu.c stands in for it: nodes are assigned and launched, numbers mean nothing. */
  readonly computes: boolean
}

/** Keeps a library in the process although Node finds no module in it. */
const RTLD_NODELETE = 0x1000
const SOURCE = join(import.meta.dirname, 'no-gpu.c')

/** Finds onnxruntime's CUDA library and a GPU, or what stands in for one. Must come before the first session on CUDA. */
export async function cudaForTests(): Promise<CudaForTests> {
  const computes = existsSync('/dev/nvidiactl')
  const skip = (why: string) => ({ missing: ` (skipped: ${why})`, computes })
  const { folder } = installedBinding()
  if (!PROVIDER_FILES.every((name) => existsSync(join(folder, name)))) {
    return skip("the library that 'anneal device install cuda' fetches is not there")
  }
  if (!computes && !standIn()) return skip('neither a GPU nor a C compiler')
  // exact float32 instead of TF32, so that what differs is a kernel's
  process.env.NVIDIA_TF32_OVERRIDE ??= '0'
  const g = new GraphBuilder()
  try {
    const graph = g.finish([g.Neg(g.input('x', 'float32', [1]))])
    await (await Session.create(graph, { device: CUDA })).release()
    return { missing: '', computes }
  } catch (error) {
    return skip(messageOf(error))
  }
}

/** Bytes that the stand-in has copied and holds since the process began. */
export interface StandInBytes {
  readonly toDevice: number
  readonly fromDevice: number
  readonly withinDevice: number
  /** Of the device's memory, now and at its fullest. */
  readonly inUse: number
  readonly most: number
}

/** What the stand-in has counted, whichever of its libraries was asked. */
export function standInBytes(): StandInBytes {
  const libraries = standInPaths.map((path) => load(path))
  const sum = (name: string, index = 0) =>
    libraries.reduce((total, library) => {
      return total + Number(decode.uint64(library.symbol(name) + BigInt(8 * index)))
    }, 0)
  const inUse = sum('in_use')
  const [toDevice, fromDevice, withinDevice] = [1, 2, 3].map((kind) => sum('copied', kind))
  return {
    toDevice: toDevice!,
    fromDevice: fromDevice!,
    withinDevice: withinDevice!,
    inUse,
    most: sum('most_in_use'),
  }
}

const standInPaths: string[] = []

/** Builds no-gpu.c under the names of CUDA's libraries and loads it; false without a compiler. */
function standIn(): boolean {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-no-gpu-'))
  for (const name of [CUDA_LIBRARIES.driver, ...CUDA_LIBRARIES.needed]) {
    const path = join(folder, name)
    const flags = ['-w', '-shared', '-fPIC', `-Wl,-soname,${name}`, '-o', path]
    if (spawnSync('cc', [...flags, SOURCE]).status !== 0) return false
    try {
      process.dlopen({ exports: {} }, path, constants.dlopen.RTLD_NOW | RTLD_NODELETE)
    } catch {
      // it is no Node module, but from now on it is loaded
    }
    standInPaths.push(path)
  }
  return true
}
