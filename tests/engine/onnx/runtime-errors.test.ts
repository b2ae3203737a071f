import { describe, expect, it } from 'vitest'
import { creationError, runError } from '../../../engine/onnx/runtime-errors.ts'

const webgpu = { kind: 'webgpu' } as const
const cuda = { kind: 'cuda', index: 1 } as const

describe("a device's failures", () => {
  it.each([
    ['vkAllocateMemory failed with VK_ERROR_OUT_OF_DEVICE_MEMORY', 'device_out_of_memory'],
    ['[Invalid Buffer (unlabeled)] is invalid due to a previous error.', 'device_out_of_memory'],
    ['Buffer size (3221225472) exceeds the max buffer size limit (1073741824).', 'device_out_of_memory'],
    ['CUDA failure 2: out of memory ; GPU=0', 'device_out_of_memory'],
    [
      'BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 64',
      'device_out_of_memory',
    ],
    ['WebGPU device lost (1): Device was destroyed.', 'device_lost'],
    ['VK_ERROR_DEVICE_LOST', 'device_lost'],
    ['Non-zero status code returned while running Add node', 'session_run_failed'],
  ])('%s is %s', (message, code) => {
    expect(runError(webgpu, new Error(message))).toMatchObject({ code })
  })

  it('says what to install where a device is absent, and which one it is', () => {
    const vulkan = creationError(webgpu, new Error('Failed to get a WebGPU adapter: No supported adapters'))
    expect(vulkan).toMatchObject({ kind: 'unavailable', code: 'device_unavailable', param: 'device' })
    expect(vulkan.message).toContain('libvulkan.so.1')
    const library = creationError(cuda, new Error('Failed to load shared library'))
    expect(library.message).toMatch(/^cuda:1 .*anneal device install cuda/)
  })

  it("leaves what is the graph's to the graph", () => {
    expect(creationError(webgpu, new Error('Type Error: float16'))).toMatchObject({
      code: 'session_create_failed',
    })
  })
})
