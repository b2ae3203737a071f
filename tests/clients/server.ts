import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { pino } from 'pino'
import { startServer } from '../../src/main.ts'
import { loadSettings, type Settings } from '../../src/settings.ts'

export const MODEL = 'anneal-tiny'

export interface RealServer {
  url: string
  /** Base URL of OpenAI's clients. */
  baseURL: string
  /** The process of the model that was loaded last. */
  enginePid(): number
  close(): Promise<void>
}

/** The whole server with the embedded model, on a free port of the loopback. */
export async function startRealServer(change: (settings: Settings) => void = () => {}): Promise<RealServer> {
  const saves = mkdtempSync(join(tmpdir(), 'anneal-clients-'))
  const env = {
    ANNEAL_MODELS_DIR: fileURLToPath(new URL('../../data/models', import.meta.url)),
    ANNEAL_SAVES_DIR: saves,
    ANNEAL_PORT: '0',
    ANNEAL_CHAT_THREADS: '1',
  }
  const settings = await loadSettings({ env, cwd: saves })
  change(settings)
  const server = await startServer(settings, { logger: pino({ level: 'silent' }) })
  return {
    url: server.url,
    baseURL: `${server.url}/v1`,
    enginePid: () => server.application.hosts.loaded().at(-1)!.pid!,
    async close() {
      await server.close()
      rmSync(saves, { recursive: true, force: true })
    },
  }
}
