import { basename } from 'node:path'
import type { Logger } from 'pino'
import type { Devices } from './device/devices.ts'
import { kvBudget, servedBytes } from './device/kv-budget.ts'
import type { ServedPlacement } from './engine-host/client.ts'
import type { JobPlaces } from './jobs/job-run.ts'
import { readModelFacts } from './models/model-folder.ts'
import type { Settings } from './settings.ts'

/** Jobs compute on the device that is noted in their row when they are submitted; kinds that note none, on the CPU. */
export function jobPlaces(devices: Devices): JobPlaces {
  return {
    place({ resolved: { device, expectedBytes } }) {
      const bytes = typeof expectedBytes === 'number' ? () => expectedBytes : undefined
      return devices.place(typeof device === 'string' ? device : 'cpu', bytes)
    },
    retest: (placement) => devices.retest(placement),
    release: (placement) => devices.release(placement),
  }
}

/** The setting that decides where a base model answers. */
export function servedDevice({ device, chat }: Settings, baseFolder?: string): string {
  const own = baseFolder === undefined ? undefined : chat.modelDevices[basename(baseFolder)]
  return own ?? chat.device ?? device
}

/** Where served models compute, with the memory for their keys and values. */
export function servedPlaces(
  devices: Devices,
  settings: Settings,
): (baseFolder: string) => Promise<ServedPlacement> {
  const { chat } = settings
  return async (baseFolder) => {
    const weights = chat.modelWeights[basename(baseFolder)] ?? chat.weights
    const device = servedDevice(settings, baseFolder)
    const parametersOf = () => readModelFacts(baseFolder).parameters
    const placement = await devices.place(device, () => servedBytes(parametersOf(), weights))
    try {
      const freeBytes = placement.gpu?.freeBytes
      const kvBytes = kvBudget({
        configured: chat.kvBytes,
        freeBytes,
        parameters: freeBytes === undefined ? 0 : parametersOf(),
        weights,
      })
      return { ...placement, limits: { kvBytes } }
    } catch (error) {
      devices.release(placement)
      throw error
    }
  }
}

/**
 * Finds out what the settings' devices come to and notes it in the log. A device that is asked for by name and is not there
 * is an error.
 *
 * @throws EngineError `unsupported` 'device_unavailable'
 */
export async function chooseDevices(devices: Devices, settings: Settings, logger: Logger): Promise<void> {
  const { device, chat } = settings
  const wanted = new Set([device, servedDevice(settings), ...Object.values(chat.modelDevices)])
  for (const setting of wanted) {
    const chosen = await devices.choose(setting)
    logger.info({ setting, device: chosen.device.kind, reason: chosen.reason }, 'device')
  }
}
