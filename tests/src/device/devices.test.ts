import { describe, expect, it, vi } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import { runError } from '../../../engine/onnx/runtime-errors.ts'
import { CUDA_LIBRARIES, type CudaFacts } from '../../../src/device/cuda-facts.ts'
import { compareVersions, cudaProblems } from '../../../src/device/cuda-problems.ts'
import { Devices, describePlacement } from '../../../src/device/devices.ts'
import { cudaFindings } from '../../../src/device/findings.ts'
import { GpuClaims } from '../../../src/device/gpu-claims.ts'
import { type Gpu, parseGpus, placesOnGpus, visibleGpus } from '../../../src/device/gpus.ts'
import { PROVIDER_FILES } from '../../../src/device/install/known-providers.ts'
import { kvBudget } from '../../../src/device/kv-budget.ts'
import { explainOutOfMemory } from '../../../src/device/out-of-memory.ts'
import { explainFailure, type SelfTestResult, testInChild } from '../../../src/device/test-device.ts'

const GB = 1e9
const PASSED: SelfTestResult = { ok: true, reason: 'passed', milliseconds: 1, cpuMilliseconds: 10 }
const SLOW: SelfTestResult = {
  ok: true,
  reason: '500.0 ms, the CPU 3.0 ms',
  milliseconds: 500,
  cpuMilliseconds: 3,
}
const FAILED: SelfTestResult = {
  ok: false,
  reason: 'CUDA failure 999: unknown error',
  milliseconds: undefined,
  cpuMilliseconds: undefined,
}

const gpu = (index: number, freeBytes: number, changes: Partial<Gpu> = {}): Gpu => ({
  index,
  uuid: `GPU-${index}`,
  name: 'NVIDIA L4',
  driver: '580.82.07',
  totalBytes: 24 * GB,
  freeBytes,
  ...changes,
})

/** A machine on which CUDA should work. */
function facts(changes: Partial<CudaFacts> = {}): CudaFacts {
  const { driver, needed, cudnn } = CUDA_LIBRARIES
  return {
    binding: { version: '1.30.0', platform: 'linux/x64' },
    provider: {
      present: [...PROVIDER_FILES],
      versions: ['1.30.0'],
      manifest: { version: '1.30.0', source: 'a wheel', sha256: {} },
    },
    gpus: [gpu(0, 10 * GB), gpu(1, 20 * GB)],
    libraries: Object.fromEntries([driver, ...needed, cudnn].map((name) => [name, true])),
    ...changes,
  }
}

const NO_CUDA = facts({ provider: { present: [], versions: [], manifest: undefined } })
const without = (...names: string[]) => ({
  ...facts().libraries,
  ...Object.fromEntries(names.map((name) => [name, false])),
})

describe('cudaProblems', () => {
  it('finds nothing on a machine where CUDA should work', () => expect(cudaProblems(facts())).toEqual([]))

  it.each([
    ['not_installed', NO_CUDA, /anneal device install cuda/],
    [
      'incomplete',
      facts({ provider: { ...facts().provider, present: ['libonnxruntime_providers_cuda.so'] } }),
      /install cuda/,
    ],
    ['provider_version', facts({ provider: { ...facts().provider, versions: ['1.29.0'] } }), /install cuda/],
    [
      'provider_version',
      facts({ provider: { ...facts().provider, versions: ['1.29.0'], manifest: undefined } }),
      /Remove .*providers_cuda/,
    ],
    ['driver_too_old', facts({ gpus: [gpu(0, GB, { driver: '570.172.08' })] }), /newer driver/],
    [
      'no_driver',
      facts({ gpus: undefined, libraries: without('libcuda.so.1') }),
      /580\.65\.06 or later.*--gpus all/,
    ],
    ['no_gpu', facts({ gpus: [] }), /nvidia-smi/],
    [
      'libraries_missing',
      facts({ libraries: without('libcublas.so.13', 'libcurand.so.10') }),
      /LD_LIBRARY_PATH/,
    ],
    ['platform', facts({ binding: { version: '1.30.0', platform: 'darwin/arm64' } }), /webgpu/],
  ])('says %s and what to do', (code, machine, remedy) => {
    const [problem] = cudaProblems(machine)
    expect(problem).toMatchObject({ code, isOptional: false })
    expect(problem?.remedy).toMatch(remedy)
  })

  it('names both versions where they differ, and the driver that is needed', () => {
    const other = facts({ provider: { ...facts().provider, versions: ['1.29.0'] } })
    expect(cudaProblems(other)[0]?.text).toMatch(/onnxruntime 1\.29\.0.*onnxruntime-node is 1\.30\.0/)
    const old = facts({ gpus: [gpu(0, GB, { driver: '570.172.08' })] })
    expect(cudaProblems(old)[0]?.text).toMatch(/is 570\.172\.08; CUDA 13\.0 needs 580\.65\.06/)
  })

  it('takes a missing cuDNN for a note, since onnxruntime opens it only when an operation needs it', () => {
    const [problem] = cudaProblems(facts({ libraries: without('libcudnn.so.9') }))
    expect(problem).toMatchObject({ code: 'cudnn_missing', isOptional: true })
    expect(problem?.remedy).toContain('nvidia-cudnn-cu13')
  })

  it('compares versions by their numbers', () => {
    expect(compareVersions('580.9', '580.65.06')).toBeLessThan(0)
    expect(compareVersions('580.65.06', '580.65.6')).toBe(0)
    expect(compareVersions('590.1', '580.65.06')).toBeGreaterThan(0)
  })
})

describe('cudaFindings', () => {
  it('is no fault where nothing asks for CUDA and it is not installed', () => {
    expect(cudaFindings(NO_CUDA, false)).toEqual([
      expect.objectContaining({ ok: true, text: expect.stringContaining('anneal device install cuda') }),
    ])
    expect(cudaFindings(NO_CUDA, true)[0]).toMatchObject({ ok: false })
  })

  it('is a fault where it is installed and cannot work, and names the GPUs', () => {
    const old = facts({
      gpus: [gpu(0, 10 * GB, { driver: '570.172.08' })],
      libraries: without('libcudnn.so.9'),
    })
    expect(cudaFindings(old, false).map(({ ok, text }) => `${ok} ${text}`)).toEqual([
      expect.stringMatching(/^false CUDA: The NVIDIA driver is 570.*newer driver/),
      expect.stringMatching(/^true CUDA: libcudnn\.so\.9 is not found/),
      'true cuda:0 is NVIDIA L4, 10.00 GB of 24.00 GB free, driver 570.172.08',
    ])
  })
})

describe('GPUs', () => {
  const table = `GPU-aa, 580.82.07, 23034, 22560, NVIDIA L4
GPU-bb, 580.82.07, 81559, 1024, NVIDIA H100, 80GB
GPU-cc, 580.82.07, [GPU is lost], [N/A], NVIDIA L4
No devices were found
`
  it('are read from nvidia-smi, without those that are lost', () => {
    const gpus = parseGpus(table)
    expect(gpus.map(({ index, uuid, name }) => ({ index, uuid, name }))).toEqual([
      { index: 0, uuid: 'GPU-aa', name: 'NVIDIA L4' },
      { index: 1, uuid: 'GPU-bb', name: 'NVIDIA H100, 80GB' },
    ])
    expect(gpus[0]).toMatchObject({
      driver: '580.82.07',
      freeBytes: 22560 * 2 ** 20,
      totalBytes: 23034 * 2 ** 20,
    })
  })

  it('are numbered as CUDA numbers those that CUDA_VISIBLE_DEVICES leaves', () => {
    const gpus = parseGpus(table)
    const left = (visible?: string) => visibleGpus(gpus, visible).map(({ index, uuid }) => [index, uuid])
    expect(left()).toEqual([
      [0, 'GPU-aa'],
      [1, 'GPU-bb'],
    ])
    expect(left('1,0')).toEqual([
      [0, 'GPU-bb'],
      [1, 'GPU-aa'],
    ])
    expect(left('GPU-b')).toEqual([[0, 'GPU-bb']])
    expect(left('0,7,1')).toEqual([[0, 'GPU-aa']])
    expect(left('-1')).toEqual([])
    expect(left('')).toEqual([])
  })

  it('are taken by their free memory, or by their number', () => {
    const gpus = [gpu(0, 10 * GB), gpu(1, 20 * GB), gpu(2, 20 * GB)]
    expect(placesOnGpus(gpus).map(({ index }) => index)).toEqual([1, 2, 0])
    expect(placesOnGpus(gpus, 0).map(({ index }) => index)).toEqual([0])
    expect(() => placesOnGpus(gpus, 3)).toThrow(/no cuda:3 here.*cuda:0 \(NVIDIA L4\), cuda:1/)
  })
})

describe('Devices', () => {
  const machine = (found: CudaFacts, results: Record<string, SelfTestResult>) => {
    const tried: string[] = []
    const devices = new Devices({
      probe: async () => found,
      test: async ({ kind }, { env }) => {
        const key = env?.CUDA_VISIBLE_DEVICES ?? kind
        tried.push(key)
        return results[key] ?? FAILED
      },
    })
    return { devices, tried }
  }

  it('take CUDA first, without a look at the others', async () => {
    const { devices, tried } = machine(facts(), { 'GPU-1': PASSED })
    expect(await devices.choose('auto')).toEqual({
      device: { kind: 'cuda' },
      reason: 'CUDA passed its self-test.',
    })
    expect(tried).toEqual(['GPU-1'])
  })

  it('take WebGPU where it is faster than the CPU, and say why not CUDA', async () => {
    const { devices } = machine(NO_CUDA, { webgpu: PASSED })
    const { device, reason } = await devices.choose('auto')
    expect(device).toEqual({ kind: 'webgpu' })
    expect(reason).toMatch(/WebGPU passed.*not installed/)
  })

  it('leave WebGPU in software alone unless it is asked for by name', async () => {
    const { devices } = machine(NO_CUDA, { webgpu: SLOW })
    expect(devices.summary('auto')).toMatchObject({ device: 'auto' })
    const { device, reason } = await devices.choose('auto')
    expect(device).toEqual({ kind: 'cpu' })
    expect(reason).toMatch(/not installed.*webgpu: no faster than the CPU \(500\.0 ms, the CPU 3\.0 ms\)/)
    expect(devices.summary('auto')).toEqual({ device: 'cpu', reason })
    expect((await devices.choose('webgpu')).device).toEqual({ kind: 'webgpu' })
  })

  it('do not try WebGPU where Linux has no Vulkan, unless it is asked for', async () => {
    const { devices, tried } = machine(
      { ...NO_CUDA, libraries: without('libvulkan.so.1') },
      { webgpu: PASSED },
    )
    expect(await devices.choose('auto')).toMatchObject({
      device: { kind: 'cpu' },
      reason: expect.stringContaining('libvulkan.so.1 is not found'),
    })
    expect(tried).toEqual([])
    expect((await devices.choose('webgpu')).device).toEqual({ kind: 'webgpu' })
  })

  it('never take the CPU for a device that is asked for by name and absent', async () => {
    const { devices } = machine(NO_CUDA, {})
    const absent = { kind: 'unsupported', code: 'device_unavailable', param: 'device' }
    await expect(devices.choose('cuda')).rejects.toMatchObject(absent)
    await expect(devices.choose('cuda')).rejects.toThrow(
      /not installed\. Run `anneal device install cuda`\.$/,
    )
    await expect(devices.place('webgpu')).rejects.toThrow(/cannot be used: .*Vulkan/)
    await expect(devices.place('tpu')).rejects.toMatchObject({ code: 'invalid_device' })
  })

  it('place on the GPU with the most free memory, and let the child see that one alone', async () => {
    const { devices } = machine(facts(), { 'GPU-0': PASSED, 'GPU-1': PASSED })
    const placement = await devices.place('cuda')
    expect(placement).toMatchObject({
      name: 'cuda:1',
      device: { kind: 'cuda', index: 0 },
      env: { CUDA_VISIBLE_DEVICES: 'GPU-1' },
    })
    expect(describePlacement(placement)).toBe('cuda:1 (NVIDIA L4, 20.00 GB of 24.00 GB free)')
    expect((await devices.place('cuda:0')).env).toEqual({ CUDA_VISIBLE_DEVICES: 'GPU-0' })
    await expect(devices.place('cuda:2')).rejects.toThrow(/no cuda:2 here/)
    expect(await devices.capacity('cuda')).toBe(24 * GB)
    expect(await devices.capacity('cpu')).toBeUndefined()
  })

  it('place two that start at once on two GPUs, though neither has taken memory yet', async () => {
    const { devices } = machine(facts(), { 'GPU-0': PASSED, 'GPU-1': PASSED })
    const bytes = () => 12 * GB
    const placed = await Promise.all([devices.place('cuda', bytes), devices.place('auto', bytes)])
    expect(placed.map(({ name }) => name)).toEqual(['cuda:1', 'cuda:0'])
    const third = await devices.place('cuda:1')
    expect(third.gpu?.freeBytes).toBe(8 * GB) // what the first will leave, for the estimate of the third
    for (const placement of [...placed, third]) devices.release(placement)
    expect((await devices.place('cuda')).gpu?.freeBytes).toBe(20 * GB)
  })

  it('count what was promised once, also when the driver sees it taken', async () => {
    const found = facts()
    const { devices } = machine(found, { 'GPU-0': PASSED, 'GPU-1': PASSED })
    await devices.place('cuda:1', () => 12 * GB)
    const freeThere = async () => {
      const placement = await devices.place('cuda:1', () => 0)
      devices.release(placement)
      return placement.gpu!.freeBytes / GB
    }
    expect(await freeThere()).toBe(8)
    found.gpus = [gpu(0, 10 * GB), gpu(1, 15 * GB)] // 5 of 12 are taken
    expect(await freeThere()).toBe(8)
    found.gpus = [gpu(0, 10 * GB), gpu(1, 8 * GB)]
    expect(await freeThere()).toBe(8)
    found.gpus = [gpu(0, 10 * GB), gpu(1, 7 * GB)] // and something else has come
    expect(await freeThere()).toBe(7)
  })

  it('tell what a run finds on them, also where auto chose', async () => {
    const half = machine(NO_CUDA, { webgpu: { ...PASSED, hasHalf: true } }).devices
    expect(await half.traits('auto')).toEqual({ kind: 'webgpu', hasHalf: true, multipliesBfloat16: false })
    const { devices } = machine(NO_CUDA, { webgpu: PASSED })
    expect(await devices.traits('auto')).toMatchObject({ kind: 'webgpu', hasHalf: false })
    expect(await devices.traits('cpu')).toMatchObject({
      kind: 'cpu',
      hasHalf: true,
      multipliesBfloat16: false,
    })
    expect(await machine(NO_CUDA, {}).devices.traits('auto')).toMatchObject({ kind: 'cpu' })
    const cuda = machine(facts(), { 'GPU-1': { ...PASSED, hasHalf: true, multipliesBfloat16: true } }).devices
    expect(await cuda.traits('auto')).toEqual({ kind: 'cuda', hasHalf: true, multipliesBfloat16: true })
    // it was asked, and nothing was promised
    expect((await cuda.place('cuda:1')).gpu?.freeBytes).toBe(20 * GB)
  })

  it('place elsewhere when a GPU fails its self-test, also one that worked before', async () => {
    const results: Record<string, SelfTestResult> = { 'GPU-0': PASSED, 'GPU-1': PASSED, webgpu: PASSED }
    const { devices, tried } = machine(facts(), results)
    const placement = await devices.place('auto')
    expect(await devices.retest(placement)).toBe(true)
    results['GPU-1'] = FAILED
    expect(await devices.retest(placement)).toBe(false)
    expect((await devices.place('auto')).name).toBe('cuda:0')
    await expect(devices.place('cuda:1')).rejects.toThrow(/cuda:1 \(NVIDIA L4\): CUDA failure 999/)
    results['GPU-0'] = FAILED
    expect(await devices.retest({ name: 'cuda:0' })).toBe(false)
    expect((await devices.place('auto')).name).toBe('webgpu')
    const before = tried.length
    await devices.place('auto')
    expect(tried.length).toBe(before) // nothing is tried twice without a reason
  })
})

describe('a promise of memory that nobody takes', () => {
  it('is forgotten after some minutes', () => {
    vi.useFakeTimers()
    try {
      const claims = new GpuClaims()
      claims.claim('GPU-0', 4 * GB)
      const free = () => claims.unclaimed([gpu(0, 10 * GB)])[0]!.freeBytes / GB
      expect(free()).toBe(6)
      vi.advanceTimersByTime(4 * 60_000)
      expect(free()).toBe(6)
      vi.advanceTimersByTime(60_000)
      expect(free()).toBe(10)
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('a device that has failed', () => {
  it('is believed to for a while, and tried again then', async () => {
    vi.useFakeTimers()
    try {
      let works = false
      let tries = 0
      const test = async () => {
        tries++
        return works ? PASSED : FAILED
      }
      const devices = new Devices({ probe: async () => NO_CUDA, test, failedForMs: 20_000 })
      for (const _ of [1, 2]) await expect(devices.place('webgpu')).rejects.toThrow(/cannot be used/)
      works = true
      await vi.advanceTimersByTimeAsync(19_000)
      await expect(devices.place('webgpu')).rejects.toThrow(/cannot be used/)
      await vi.advanceTimersByTimeAsync(2000)
      expect((await devices.place('webgpu')).name).toBe('webgpu')
      expect(tries).toBe(2)
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('testInChild', () => {
  const entry = new URL('./doomed-self-test.ts', import.meta.url)

  it.each([
    ['exit', /was ended by exit code 3/],
    ['abort', /was ended by SIGABRT/],
    ['hang', /did not end within 0\.5 s/],
    ['load', /^libonnxruntime_providers_cuda\.so cannot be loaded: libcublasLt\.so\.13: cannot open/],
  ])('takes a driver that makes it %s for a failed test', async (how, reason) => {
    const timeLimitMs = how === 'hang' ? 500 : 60_000
    const options = { entry, timeLimitMs, env: { DOOM: how } }
    const result = await testInChild({ kind: 'cuda' }, options)
    expect(result).toMatchObject({ ok: false, milliseconds: undefined })
    expect(result.reason).toMatch(reason)
  })

  it('passes the CPU', async () => {
    expect(await testInChild({ kind: 'cpu' })).toMatchObject({ ok: true })
  })
})

describe('explainFailure', () => {
  it('finds the one sentence in what the runtime says', () => {
    const cuda =
      '/src/cuda_call.cc:154 std::conditional_t<THRW> CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; line=352'
    expect(explainFailure(cuda, '')).toBe('CUDA failure 100: no CUDA-capable device is detected')
    const adapter = 'webgpu_context.cc:136 was false. Failed to get a WebGPU adapter: No supported adapters\n'
    const loader =
      "Warning: Couldn't load Vulkan: libvulkan.so.1: cannot open shared object file\n  at operator()"
    expect(explainFailure(adapter, loader)).toBe(
      "Failed to get a WebGPU adapter: No supported adapters (Couldn't load Vulkan: libvulkan.so.1: cannot open shared object file)",
    )
    expect(explainFailure('something else', loader)).toContain('something else')
  })
})

describe('kvBudget', () => {
  const model = {
    parameters: 1.1e9,
    weights: 'float32' as const,
    configured: undefined,
  }

  it('is the configured one, or 1 GiB, where memory is the machine’s own', () => {
    expect(kvBudget({ ...model, freeBytes: undefined })).toBe(2 ** 30)
    expect(kvBudget({ ...model, freeBytes: undefined, configured: 2 ** 25 })).toBe(2 ** 25)
  })

  it('is most of what the weights leave of a GPU', () => {
    const budget = kvBudget({ ...model, freeBytes: 20 * GB })
    expect(budget).toBeCloseTo(0.8 * (20 - 4.4 - 0.7) * GB, -3)
    expect(kvBudget({ ...model, weights: 'int4', freeBytes: 20 * GB })).toBeGreaterThan(budget)
    expect(kvBudget({ ...model, freeBytes: 20 * GB, configured: 2 ** 30 })).toBe(2 ** 30)
    expect(kvBudget({ ...model, freeBytes: 20 * GB, configured: 2 ** 20 })).toBe(2 ** 20)
  })

  it('refuses with the numbers what does not fit', () => {
    expect(() => kvBudget({ ...model, freeBytes: 4 * GB })).toThrow(
      /5\.17 GB .*4\.40 GB for weights as float32.*only 4\.00 GB/,
    )
    expect(() => kvBudget({ ...model, freeBytes: 8 * GB, configured: 4 * GB })).toThrow(
      /4\.00 GB for keys and values/,
    )
  })
})

describe('explainOutOfMemory', () => {
  const placement = { name: 'cuda:1', gpu: gpu(1, 3 * GB) }

  it.each([
    'CUDA failure 2: out of memory ; GPU=0',
    'BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1073741824',
    'Available memory of 12582912 is smaller than requested bytes of 100663296',
    'Error: std::bad_alloc',
  ])('turns "%s" into an answer with the numbers', (message) => {
    const error = runError({ kind: 'cuda', index: 1 }, new Error(message))
    const explained = explainOutOfMemory(error, placement, 5 * GB)
    expect(explained).toMatchObject({ kind: 'too_large', code: 'device_out_of_memory', cause: error })
    expect(String(explained)).toMatch(
      /cuda:1 ran out of memory.*24\.00 GB, of which 3\.00 GB.*estimate was 5\.00 GB/,
    )
  })

  it('leaves other errors alone', () => {
    const other = new EngineError('internal', 'session_run_failed', 'CUDA failure 719: launch failure')
    expect(explainOutOfMemory(other, placement)).toBe(other)
    const wrong = new Error('out of memory')
    expect(explainOutOfMemory(wrong, placement)).toBe(wrong)
  })
})
