import { constants, existsSync } from 'node:fs'
import { access } from 'node:fs/promises'
import { availableParallelism, freemem, totalmem } from 'node:os'
import { dirname } from 'node:path'
import { Command } from 'commander'
import { EngineError } from '../../engine/errors.ts'
import type { Application } from '../application.ts'
import { withApplication } from './support/application.ts'
import { formatBytes } from './support/format.ts'
import { print, shownPath } from './support/terminal.ts'

interface Finding {
  ok: boolean
  text: string
}

/** `anneal doctor`: what a run needs, looked at without starting one. */
export function doctorCommand(): Command {
  return new Command('doctor').description('Check this machine and the configured folders.').action(() =>
    withApplication(async (application) => {
      const findings = [machine(), await engine(), ...(await folders(application))]
      for (const { ok, text } of findings) print(`${ok ? 'ok   ' : 'FAIL '} ${text}`)
      if (findings.every(({ ok }) => ok)) return
      throw new EngineError('invalid', 'doctor_failed', 'Something above needs attention.')
    }),
  )
}

function machine(): Finding {
  const memory = `${formatBytes(freemem())} of ${formatBytes(totalmem())} memory free`
  return { ok: true, text: `Node ${process.versions.node}, ${availableParallelism()} cores, ${memory}` }
}

async function engine(): Promise<Finding> {
  try {
    await import('../../engine/onnx/session.ts')
    return { ok: true, text: 'ONNX Runtime loads' }
  } catch (error) {
    return {
      ok: false,
      text: `ONNX Runtime does not load: ${error instanceof Error ? error.message : error}`,
    }
  }
}

async function folders({ settings, services }: Application): Promise<Finding[]> {
  const { saves, datasets: data } = settings.directories
  const models = await services.models.list()
  const bases = models.filter(({ kind }) => kind === 'base').map(({ id }) => id)
  const datasets = await services.datasets.list()
  const broken = datasets.filter(({ error }) => error !== null)
  return [
    { ok: existsSync(settings.configFile), text: `settings from ${shownPath(settings.configFile)}` },
    { ok: await isWritable(saves), text: `runs go to ${shownPath(saves)}` },
    {
      ok: await isWritable(dirname(settings.database)),
      text: `jobs are kept in ${shownPath(settings.database)}`,
    },
    { ok: bases.length > 0, text: `base models: ${bases.join(', ') || 'none'}` },
    { ok: datasets.length > 0, text: `${datasets.length} datasets in ${shownPath(data)}` },
    ...broken.map(({ name, error }) => ({ ok: false, text: `dataset ${name}: ${error}` })),
  ]
}

async function isWritable(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK).then(
    () => true,
    () => false,
  )
}
