import { Command } from 'commander'
import { EngineError } from '../../engine/errors.ts'
import { installedBinding } from '../device/install/binding.ts'
import { installCuda, removeCuda } from '../device/install/install.ts'
import { formatBytes } from './support/format.ts'
import { createProgressView } from './support/progress.ts'
import { note, onInterrupt, print, printJson, shownPath } from './support/terminal.ts'

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
    .addCommand(installCommand())
    .addCommand(removeCommand())
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
