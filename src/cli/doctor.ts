import { constants, existsSync, statfsSync } from 'node:fs'
import { access } from 'node:fs/promises'
import { createServer } from 'node:net'
import { availableParallelism, freemem, totalmem } from 'node:os'
import { dirname } from 'node:path'
import { Command } from 'commander'
import { EngineError, messageOf } from '../../engine/errors.ts'
import { formatDevice } from '../../engine/onnx/device.ts'
import type { Application } from '../application.ts'
import { probeCuda } from '../device/cuda-facts.ts'
import { cudaFindings, type DeviceFinding } from '../device/findings.ts'
import { misnamedFolders } from '../models/bases.ts'
import { servedDevice } from '../places.ts'
import { isElsewhere } from './datasets.ts'
import { withApplication } from './support/application.ts'
import { formatBytes } from './support/format.ts'
import { print, printJson, shownPath } from './support/terminal.ts'

interface Finding {
  check: string
  ok: boolean
  text: string
}

/** Below this a run's checkpoints or an export may not fit. */
const LITTLE_DISK_BYTES = 2e9

/** `anneal doctor`: what a run needs, looked at without starting one. */
export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Check this machine and the configured folders: device, memory, disk, native modules, port.')
    .option('--json', 'print the findings as JSON')
    .addHelpText('after', '\nExample:\n  anneal doctor --json')
    .action(({ json }: { json?: boolean }) =>
      withApplication(async (application) => {
        const { settings } = application
        const findings = [
          machine(),
          await nativeModule('onnxruntime-node', 'the engine'),
          ...(await deviceFindings(application)),
          await nativeModule('better-sqlite3', 'the database'),
          await nativeModule('@resvg/resvg-js', 'loss pictures'),
          await nativeModule('@node-rs/jieba', 'ROUGE'),
          disk(settings.directories.saves),
          await port(settings.server),
          ...(await folders(application)),
        ]
        if (json) printJson(findings)
        else for (const { ok, text } of findings) print(`${ok ? 'ok   ' : 'FAIL '} ${text}`)
        if (findings.every(({ ok }) => ok)) return
        throw new EngineError('invalid', 'doctor_failed', 'Something above needs attention.')
      }),
    )
}

function machine(): Finding {
  const memory = `${formatBytes(freemem())} of ${formatBytes(totalmem())} memory free`
  const text = `Node ${process.versions.node}, ${availableParallelism()} cores, ${memory}`
  return { check: 'machine', ok: true, text }
}

/** The devices that the settings ask for, what they come to, and what CUDA would need. */
async function deviceFindings({ devices, settings }: Application): Promise<Finding[]> {
  const chat = servedDevice(settings)
  const asked = [settings.device, chat, ...Object.values(settings.chat.modelDevices)]
  const found: Finding[] = []
  for (const setting of new Set(asked)) {
    try {
      const { device, reason } = await devices.choose(setting)
      found.push({
        check: 'device',
        ok: true,
        text: `device ${setting} is ${formatDevice(device)}: ${reason}`,
      })
    } catch (error) {
      found.push({ check: 'device', ok: false, text: messageOf(error) })
    }
  }
  const facts = await probeCuda()
  const isAsked = asked.some((setting) => setting.startsWith('cuda'))
  const cuda = cudaFindings(facts, isAsked)
  if (isAsked || facts.provider.present.length > 0) found.push(await nativeModule('koffi', 'answers on CUDA'))
  // With all that it needs, CUDA may still fail its self-test, which 'auto' passes over.
  const isToBeTried = !isAsked && facts.provider.present.length > 0 && cuda.every(({ ok }) => ok)
  if (isToBeTried) cuda.push(...(await cudaTest(devices)))
  return [...found, ...cuda.map((finding) => ({ check: 'cuda', ...finding }))]
}

async function cudaTest(devices: Application['devices']): Promise<DeviceFinding[]> {
  return devices.choose('cuda').then(
    () => [],
    (error) => [{ ok: false, text: messageOf(error) }],
  )
}

async function nativeModule(name: string, purpose: string): Promise<Finding> {
  try {
    await import(name)
    return { check: name, ok: true, text: `${name} loads (${purpose})` }
  } catch (error) {
    const text = `${name} does not load (${purpose}); run npm install again: ${messageOf(error)}`
    return { check: name, ok: false, text }
  }
}

function disk(saves: string): Finding {
  const { bavail, bsize } = statfsSync(saves)
  const free = bavail * bsize
  return {
    check: 'disk',
    ok: free > LITTLE_DISK_BYTES,
    text: `${formatBytes(free)} of disk free for ${shownPath(saves)}`,
  }
}

/** Whether a server could listen; one that listens already is no fault. */
async function port({ host, port: number }: Application['settings']['server']): Promise<Finding> {
  const server = createServer()
  const code = await new Promise<string>((done) => {
    server.once('error', (error: NodeJS.ErrnoException) => done(error.code ?? error.message))
    server.listen({ host, port: number, exclusive: true }, () => done('free'))
  })
  server.close()
  const where = `${host}:${number}`
  if (code === 'free') return { check: 'port', ok: true, text: `${where} is free for anneal serve` }
  if (code === 'EADDRINUSE')
    return { check: 'port', ok: true, text: `${where} is in use: a server runs already` }
  return { check: 'port', ok: false, text: `nothing can listen on ${where}: ${code}` }
}

async function folders({ settings, services }: Application): Promise<Finding[]> {
  const { saves, datasets: data } = settings.directories
  const models = await services.models.list()
  const bases = models.filter(({ kind }) => kind === 'base').map(({ id }) => id)
  const datasets = await services.datasets.list()
  const here = datasets.filter((dataset) => !isElsewhere(dataset))
  const broken = here.filter(({ error }) => error !== null)
  const usable = here.length - broken.length
  return [
    {
      check: 'settings',
      ok: existsSync(settings.configFile),
      text: `settings from ${shownPath(settings.configFile)}`,
    },
    { check: 'saves', ok: await isWritable(saves), text: `runs go to ${shownPath(saves)}` },
    {
      check: 'database',
      ok: await isWritable(dirname(settings.database)),
      text: `jobs are kept in ${shownPath(settings.database)}`,
    },
    { check: 'models', ok: bases.length > 0, text: `base models: ${bases.join(', ') || 'none'}` },
    ...misnamedFolders(settings.directories.models).map(({ folder, reason }) => ({
      check: 'model',
      ok: false,
      text: `model folder ${shownPath(folder)} is not listed: ${reason}`,
    })),
    { check: 'datasets', ok: usable > 0, text: `${usable} datasets in ${shownPath(data)}` },
    ...broken.map(({ name, error }) => ({ check: 'dataset', ok: false, text: `dataset ${name}: ${error}` })),
  ]
}

async function isWritable(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK).then(
    () => true,
    () => false,
  )
}
