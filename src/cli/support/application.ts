import type { Application } from '../../application.ts'
import { loadSettings, type Settings } from '../../settings.ts'

/** The operator's settings; ANNEAL_DEBUG is the command line's own and no setting. */
export function readSettings(overrides: NodeJS.ProcessEnv = {}): Promise<Settings> {
  const { ANNEAL_DEBUG: _, ...env } = process.env
  return loadSettings({ env: { ...env, ...overrides } })
}

/** Opens the application for one command and closes it afterwards. It works beside a running server. */
export async function withApplication<T>(
  work: (application: Application) => Promise<T>,
  change: (settings: Settings) => Settings = (settings) => settings,
): Promise<T> {
  const settings = change(await readSettings())
  const { openApplication } = await import('../../application.ts')
  const application = openApplication(settings)
  try {
    return await work(application)
  } finally {
    await application.close()
  }
}
