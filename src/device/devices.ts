import { EngineError, messageOf } from '../../engine/errors.ts'
import { CPU, type Device, type DeviceTraits, formatDevice, parseDevice } from '../../engine/onnx/device.ts'
import { gigabytes } from '../../engine/units.ts'
import { type CudaFacts, probeCuda, VULKAN_LOADER } from './cuda-facts.ts'
import { type CudaProblem, cudaProblems } from './cuda-problems.ts'
import { GpuClaims } from './gpu-claims.ts'
import { type Gpu, placesOnGpus } from './gpus.ts'
import { type DeviceTest, type SelfTestResult, testInChild } from './test-device.ts'

/** What a wish comes to, and why. */
export interface ChosenDevice {
  device: Device
  /** One or two sentences for people. */
  reason: string
}

/** Where a run or a model computes. */
export interface Placement {
  /** The device as the child process sees it, which sees no GPU but its own. */
  device: Device
  /** The device as the operator knows it, such as cuda:1. */
  name: string
  /** What the child's environment must have beside this process's own. */
  env: Record<string, string>
  /** Whether it converts to float16 and back. */
  hasHalf?: boolean
  /** Whether it multiplies bfloat16. */
  multipliesBfloat16?: boolean
  /** What it was promised of a GPU (gpu-claims.ts), until it is released. */
  claim?: number
  /** The GPU, where the driver tells; memory that is promised to others does not count as free. */
  gpu?: Pick<Gpu, 'name' | 'freeBytes' | 'totalBytes'>
}

export interface DevicesOptions {
  test?: DeviceTest
  probe?: () => Promise<CudaFacts>
  /** How long a failed test is believed, in milliseconds; 20 s when left out. A job that waits for a device looks less often. */
  failedForMs?: number
}

/** What a placement's device can do. */
export function traitsOf({ device, hasHalf = false, multipliesBfloat16 = false }: Placement): DeviceTraits {
  return { kind: device.kind, hasHalf, multipliesBfloat16 }
}

export const ON_CPU: Placement = { device: CPU, name: 'cpu', env: {}, hasHalf: true }

/** What a process takes of a GPU of which nothing else is known: its context and a small model. */
const EXPECTED_BYTES = 1e9

/** The devices of this machine: which of them work, which is best, and which GPU has room. */
export class Devices {
  readonly #test: DeviceTest
  readonly #probe: () => Promise<CudaFacts>
  /** Self-tests of devices by their names, and of GPUs by their UUIDs. */
  readonly #tests = new Map<string, Promise<SelfTestResult>>()
  #auto: Promise<ChosenDevice> | undefined
  #autoFound: ChosenDevice | undefined
  readonly #failedForMs: number
  readonly #claims = new GpuClaims()
  /** Places on GPUs are decided one after another, so that each is told of the ones before. */
  #lastPlace: Promise<unknown> = Promise.resolve()
  readonly #closing = new AbortController()

  constructor({ test = testInChild, probe = () => probeCuda(), failedForMs = 20_000 }: DevicesOptions = {}) {
    this.#test = test
    this.#failedForMs = failedForMs
    this.#probe = probe
  }

  /**
   * What a setting comes to: a device by its name if it works, with 'auto' the best that does.
   * @throws EngineError `unsupported` 'device_unavailable' naming what is missing and what to install.
   */
  async choose(wanted: string): Promise<ChosenDevice> {
    const device = parseDevice(wanted)
    if (device === 'auto') {
      const found = this.#auto ?? this.#best()
      this.#auto = found
      found.catch(() => {
        this.#auto = undefined
      })
      this.#autoFound = await found
      return this.#autoFound
    }
    if (device.kind === 'cpu') return { device, reason: 'It is what the settings ask for.' }
    await this.#find(device)
    return { device, reason: 'It is what the settings ask for, and it passed its self-test.' }
  }

  /**
   * Decides where a run or a model computes, now: of several GPUs on the one with the most free memory that works. What
   * it is expected to take there counts as taken until it does, or until `release`.
   * @param expectedBytes how much that is; asked where it matters
   * @throws EngineError as choose does.
   */
  async place(wanted: string, expectedBytes = () => EXPECTED_BYTES): Promise<Placement> {
    const { device } = await this.choose(wanted)
    if (device.kind !== 'cuda') return this.#find(device)
    const placed = this.#lastPlace.then(() => this.#placeOnGpu(device, expectedBytes()))
    this.#lastPlace = placed.catch(() => {})
    return placed
  }

  /** Says that the process of a placement has ended, or was never started. */
  release({ claim }: Placement): void {
    if (claim !== undefined) this.#claims.release(claim)
  }

  /** What a run's step could do on a device, found out by its self-test. @throws EngineError as choose does. */
  async traits(wanted: string): Promise<DeviceTraits> {
    const { device } = await this.choose(wanted)
    return traitsOf(await this.#find(device))
  }

  /** Memory that the largest run on a device could get, in bytes; undefined where only the machine's own counts. */
  async capacity(wanted: string): Promise<number | undefined> {
    const { device } = await this.choose(wanted)
    if (device.kind !== 'cuda') return undefined
    const { gpus = [] } = await this.#probe()
    const totals = gpus.filter(({ index }) => index === (device.index ?? index)).map((gpu) => gpu.totalBytes)
    return totals.length > 0 ? Math.max(...totals) : undefined
  }

  /** What choose has said last of a setting, for those who cannot wait. */
  summary(wanted: string): { device: string; reason: string } {
    if (wanted !== 'auto') return { device: wanted, reason: 'It is what the settings ask for.' }
    if (!this.#autoFound) return { device: 'auto', reason: 'The self-tests run.' }
    return { device: formatDevice(this.#autoFound.device), reason: this.#autoFound.reason }
  }

  /** Ends the self-tests that still run. */
  close(): void {
    this.#closing.abort()
  }

  /** Tries a device again on which something has failed; true where it still works. What is chosen later goes by that. */
  async retest({ name }: Pick<Placement, 'name'>): Promise<boolean> {
    this.#tests.clear()
    this.#auto = undefined
    this.#autoFound = undefined
    return this.choose(name).then(
      () => true,
      () => false,
    )
  }

  async #best(): Promise<ChosenDevice> {
    const notes: string[] = []
    const facts = await this.#probe()
    const [problem] = cudaProblems(facts).filter(({ isOptional }) => !isOptional)
    if (problem) notes.push(`cuda: ${problem.text}`)
    else {
      try {
        await this.#find({ kind: 'cuda' })
        return { device: { kind: 'cuda' }, reason: 'CUDA passed its self-test.' }
      } catch (error) {
        notes.push(`cuda: ${messageOf(error)}`)
      }
    }
    const device: Device = { kind: 'webgpu' }
    const isHopeless = facts.binding.platform.startsWith('linux') && facts.libraries[VULKAN_LOADER] === false
    const result = isHopeless ? NO_VULKAN : await this.#tested('webgpu', device)
    if (isWorthIt(result)) return { device, reason: [`WebGPU passed: ${result.reason}.`, ...notes].join(' ') }
    notes.push(`webgpu: ${result.ok ? `no faster than the CPU (${result.reason})` : result.reason}`)
    return { device: CPU, reason: `Nothing better works here. ${notes.join(' ')}` }
  }

  async #placeOnGpu(device: Device, bytes: number): Promise<Placement> {
    const placement = await this.#findGpu(device)
    const uuid = placement.env.CUDA_VISIBLE_DEVICES
    return uuid === undefined ? placement : { ...placement, claim: this.#claims.claim(uuid, bytes) }
  }

  async #find(device: Device): Promise<Placement> {
    if (device.kind === 'cpu') return ON_CPU
    return device.kind === 'cuda' ? this.#findGpu(device) : this.#findWhole(device)
  }

  async #findGpu(device: Device): Promise<Placement> {
    const facts = await this.#probe()
    const problems = cudaProblems(facts).filter(({ isOptional }) => !isOptional)
    if (problems.length > 0) {
      const [{ text, remedy }, ...others] = problems as [CudaProblem, ...CudaProblem[]]
      const rest = others.length > 0 ? ` anneal doctor names ${others.length} more.` : ''
      throw unavailable(device, `${text} ${remedy}${rest}`)
    }
    // a driver without nvidia-smi (some containers): CUDA's own numbers have to do
    if (facts.gpus === undefined) return this.#findWhole(device)
    const places = placesOnGpus(this.#claims.unclaimed(facts.gpus), device.index)
    const failures: string[] = []
    for (const { uuid, index, name, freeBytes, totalBytes } of places) {
      const env = { CUDA_VISIBLE_DEVICES: uuid }
      const result = await this.#tested(uuid, { kind: 'cuda', index: 0 }, env)
      const gpu = { name, freeBytes, totalBytes }
      const { ok, hasHalf, multipliesBfloat16 } = result
      const cuda = { device: { kind: 'cuda', index: 0 }, name: `cuda:${index}`, env, gpu } as const
      if (ok) return { ...cuda, hasHalf, multipliesBfloat16 }
      failures.push(`cuda:${index} (${name}): ${result.reason}`)
    }
    throw unavailable(device, `${failures.join('; ')}. anneal doctor says more.`)
  }

  /** A device as the system offers it. */
  async #findWhole(device: Device): Promise<Placement> {
    const { ok, reason, hasHalf, multipliesBfloat16 } = await this.#tested(formatDevice(device), device)
    if (!ok) throw unavailable(device, `${reason}. ${device.kind === 'webgpu' ? WEBGPU_HELP : ''}`)
    return { device, name: formatDevice(device), env: {}, hasHalf, multipliesBfloat16 }
  }

  #tested(key: string, device: Device, env?: Record<string, string>): Promise<SelfTestResult> {
    let known = this.#tests.get(key)
    if (known === undefined) {
      known = this.#test(device, { env, signal: this.#closing.signal })
      this.#tests.set(key, known)
      void known.then(({ ok }) => {
        if (!ok) setTimeout(() => this.#forget(key, known), this.#failedForMs).unref()
      })
    }
    return known
  }

  /** A device that has failed may be back later. */
  #forget(key: string, test: Promise<SelfTestResult> | undefined): void {
    if (this.#tests.get(key) === test) this.#tests.delete(key)
  }
}

/** 'cuda:1 (NVIDIA L4, 22.5 of 24.1 GB free)'. */
export function describePlacement({ name, gpu }: Placement): string {
  if (!gpu) return name
  return `${name} (${gpu.name}, ${gigabytes(gpu.freeBytes)} of ${gigabytes(gpu.totalBytes)} free)`
}

const WEBGPU_HELP =
  'WebGPU needs a GPU with its driver: on Linux one for Vulkan with its loader, libvulkan.so.1 (vulkaninfo lists them), on ' +
  'macOS and Windows nothing else.'

/** Found out without the second that a test takes. */
const NO_VULKAN: SelfTestResult = {
  ok: false,
  reason: `the Vulkan loader ${VULKAN_LOADER} is not found`,
  milliseconds: undefined,
  cpuMilliseconds: undefined,
}

/** WebGPU in software, and adapters slower than the CPU, work and gain nothing. */
function isWorthIt({ ok, milliseconds, cpuMilliseconds }: SelfTestResult): boolean {
  return ok && milliseconds !== undefined && cpuMilliseconds !== undefined && milliseconds < cpuMilliseconds
}

function unavailable(device: Device, problem: string): EngineError {
  const message = `device ${formatDevice(device)} cannot be used: ${problem.trim()}`
  return new EngineError('unsupported', 'device_unavailable', message, { param: 'device' })
}
