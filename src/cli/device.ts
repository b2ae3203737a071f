import { Command } from 'commander'
import { EngineError } from '../../engine/errors.ts'
import { formatDevice } from '../../engine/onnx/device.ts'
import { type CudaFacts, probeCuda } from '../device/cuda-facts.ts'
import { Devices } from '../device/devices.ts'
import { installedBinding } from '../device/install/binding.ts'
import { installCuda, removeCuda } from '../device/install/install.ts'
import { onInterrupt } from '../interrupts.ts'
import { describeFailure } from './support/failure.ts'
import { formatBytes, formatTable } from './support/format.ts'
import { createProgressView } from './support/progress.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface InstallCommandOptions {
  from: string
  index?: string
  sha256?: string
  json?: boolean
}

/** `anneal device`: what models can run on, and the library that CUDA needs. */
export function deviceCommand(): Command {
  return new Command('device')
    .description('What models can run on here, and the CUDA library.')
    .addCommand(listCommand())
    .addCommand(installCommand())
    .addCommand(removeCommand())
}

function listCommand(): Command {
  return new Command('list')
    .description('Try each device and say what works, and why the others do not.')
    .option('--json', 'print the list as JSON')
    .addHelpText('after', '\nExample:\n  anneal device list')
    .action(async ({ json }: { json?: boolean }) => {
      const devices = new Devices()
      const rows = await listDevices(devices, await probeCuda())
      if (json) printJson(rows)
      else print(formatTable(rows.map(({ device, works, text }) => [device, works ? 'works' : '-', text])))
    })
}

/** Every device with what became of its self-test, or what it lacks. */
async function listDevices(devices: Devices, { gpus }: CudaFacts) {
  const names = ['cpu', 'webgpu', ...(gpus?.length ? gpus.map(({ index }) => `cuda:${index}`) : ['cuda'])]
  const rows: { device: string; works: boolean; text: string }[] = []
  for (const device of names) {
    try {
      const placement = await devices.place(device)
      rows.push({ device, works: true, text: placement.gpu?.name ?? '' })
    } catch (error) {
      rows.push({ device, works: false, text: describeFailure(error) })
    }
  }
  const { device, reason } = await devices.choose('auto')
  return [...rows, { device: 'auto', works: true, text: `${formatDevice(device)}. ${reason}` }]
}

function installCommand(): Command {
  return new Command('install')
    .description(
      'Put the CUDA library beside onnxruntime-node (Linux x64); the same command goes on after a break.',
    )
    .argument('<device>', 'cuda', readCuda)
    .option(
      '--from <source>',
      'pypi, npm:NAME@VERSION, an address, a file (wheel, nupkg, tgz) or a folder',
      'pypi',
    )
    .option('--index <url>', "registry to ask (default: pip's or npm's configured one)")
    .option('--sha256 <hex>', 'SHA-256 of the archive, for builds that are not known here')
    .option('--json', 'print what was installed as JSON')
    .addHelpText('after', '\nExample:\n  anneal device install cuda --from pypi')
    .action((_: string, options: InstallCommandOptions) => install(options))
}

function removeCommand(): Command {
  return new Command('remove')
    .description('Take the CUDA library away again.')
    .argument('<device>', 'cuda', readCuda)
    .addHelpText('after', '\nExample:\n  anneal device remove cuda')
    .action(async () => {
      const removed = await removeCuda(installedBinding())
      print(removed ? 'The CUDA library is removed.' : 'There is no CUDA library to remove.')
    })
}

/** @throws EngineError `invalid`: the others need no installation. */
function readCuda(word: string): string {
  if (word === 'cuda') return word
  const message = `${JSON.stringify(word)} cannot be installed; cuda can. cpu and webgpu are always there.`
  throw new EngineError('invalid', 'invalid_device', message, { param: 'device' })
}

async function install({ json, ...options }: InstallCommandOptions): Promise<void> {
  const binding = installedBinding()
  const stop = new AbortController()
  const interrupts = onInterrupt((count) => (count > 1 ? process.exit(130) : stop.abort()))
  const view = createProgressView()
  note(`Installing the CUDA library of onnxruntime ${binding.version} from ${options.from}`)
  try {
    const manifest = await installCuda({
      ...options,
      binding,
      signal: stop.signal,
      onProgress: ({ done, total, message }) => {
        const value = Math.round((100 * done) / Math.max(1, total))
        view.update({ value, total: 100, unit: '', details: ` | ${message}, ${formatBytes(total)}` })
      },
    })
    view.close()
    if (json) return printJson(manifest)
    print(
      `CUDA library of onnxruntime ${manifest.version} (${manifest.source}) is in ${shownPath(binding.folder)}.`,
    )
    note(
      'anneal doctor says whether driver and CUDA libraries are there; anneal device remove cuda undoes this.',
    )
  } finally {
    view.close()
    interrupts.close()
  }
}
