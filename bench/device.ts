import { execFileSync } from 'node:child_process'
import { release, type } from 'node:os'
import { basename } from 'node:path'
import { Devices, type Placement } from '../src/device/devices.ts'
import { listGpus } from '../src/device/gpus.ts'
import { installedBinding } from '../src/device/install/binding.ts'
import { inspectProvider } from '../src/device/install/provider-files.ts'

/** What a benchmark ran on, for its results: device, GPU, driver and versions. */
export interface BenchDevice {
  placement: Placement
  facts: Record<string, string | number>
}

/** Places a benchmark on a device. @throws EngineError where it is absent. */
export async function benchDevice(name: string): Promise<BenchDevice> {
  const devices = new Devices()
  const { reason } = await devices.choose(name)
  const placement = await devices.place(name)
  const { version } = installedBinding()
  const facts: Record<string, string | number> = { device: placement.name, onnxruntime: version, reason }
  if (placement.device.kind === 'cuda') {
    const gpu = (await listGpus())?.find(({ uuid }) => uuid === placement.env.CUDA_VISIBLE_DEVICES)
    const { manifest } = await inspectProvider(installedBinding())
    Object.assign(facts, { gpu: gpu?.name, driver: gpu?.driver, gpuBytes: gpu?.totalBytes })
    Object.assign(facts, { cudaLibrary: manifest?.source ?? 'unknown' })
  }
  if (placement.device.kind === 'webgpu') Object.assign(facts, webgpuFacts())
  return { placement, facts }
}

/** The binding does not name the adapter. Linux's Vulkan does (vulkan-tools); Metal and Direct3D come with the system. */
function webgpuFacts(): Record<string, string> {
  const system = { system: `${type()} ${release()}` }
  if (type() !== 'Linux') return system
  const { VK_ICD_FILENAMES: named } = process.env
  const driver = { driver: named ? basename(named) : 'unknown (vulkan-tools are not installed)' }
  try {
    const summary = execFileSync('vulkaninfo', ['--summary'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const all = (field: string) =>
      [...summary.matchAll(new RegExp(`^\\s*${field}\\s*= (.+)$`, 'gm'))].map(([, value]) => value).join('; ')
    return {
      ...system,
      ...driver,
      gpu: all('deviceName'),
      driver: `${all('driverName')} ${all('driverInfo')}`,
    }
  } catch {
    return { ...system, ...driver }
  }
}

/** A device's own results, so that those of the CPU stay. */
export function resultsFile(name: string, { placement }: BenchDevice): string {
  const { kind } = placement.device
  return kind === 'cpu' ? `${name}.json` : `${name}-${kind}.json`
}
