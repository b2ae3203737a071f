import { existsSync } from 'node:fs'
import { constants } from 'node:os'
import { dirname } from 'node:path'
import { GraphBuilder } from '../engine/graph/builder.ts'
import { Session } from '../engine/onnx/session.ts'

/** SwiftShader, a GPU in software, and the Vulkan loader that Debian's chromium package ships. */
const LOADER = '/usr/lib/chromium/libvulkan.so.1'
const DRIVER = '/usr/lib/chromium/vk_swiftshader_icd.json'
/** Keeps a library in the process although Node finds no module in it. */
const RTLD_NODELETE = 0x1000

export const WEBGPU = { kind: 'webgpu' } as const

/**
 * Makes WebGPU find SwiftShader in this process and its children, where chromium is installed and no driver is named; else it finds
 * what the machine has. Must come before the first session on WebGPU.
 */
export function useSoftwareGpu(): void {
  if (process.platform !== 'linux' || process.env.VK_ICD_FILENAMES || !existsSync(DRIVER)) return
  process.env.VK_ICD_FILENAMES = DRIVER
  process.env.XDG_RUNTIME_DIR ??= '/tmp'
  // for child processes, whose loader looks there
  process.env.LD_LIBRARY_PATH = [dirname(LOADER), process.env.LD_LIBRARY_PATH].filter(Boolean).join(':')
  try {
    process.dlopen({ exports: {} }, LOADER, constants.dlopen.RTLD_NOW | RTLD_NODELETE)
  } catch {
    // it is no Node module, but from now on it is loaded
  }
}

/** With the last session the compiled shaders go, and compiling them is most of what a test takes. */
const open: Session[] = []

/** A suffix for titles of tests that are skipped, and why; empty where WebGPU works. */
export async function webgpuMissing(): Promise<string> {
  useSoftwareGpu()
  const g = new GraphBuilder()
  const x = g.input('x', 'float32', [1])
  try {
    open.push(await Session.create(g.finish([g.Neg(x)]), { device: WEBGPU }))
    return ''
  } catch (error) {
    return ` (skipped: ${error instanceof Error ? error.message : error})`
  }
}
