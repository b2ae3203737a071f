import { cpSync, mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pino } from 'pino'
import { writeManifest } from '../../engine/export/manifest.ts'
import { type RunningServer, startServer } from '../../src/main.ts'
import { loadSettings } from '../../src/settings.ts'

export interface PublishedServer extends RunningServer {
  root: string
  saves: string
  models: string
}

/** A server in folders of its own, without models. */
export async function startEmptyServer(env: Record<string, string> = {}): Promise<PublishedServer> {
  const root = mkdtempSync(join(tmpdir(), 'anneal-hub-'))
  const [saves, models] = [join(root, 'saves'), join(root, 'models')]
  mkdirSync(models)
  const directories = { ANNEAL_MODELS_DIR: models, ANNEAL_DATA_DIR: root, ANNEAL_SAVES_DIR: saves }
  const settings = await loadSettings({ env: { ...directories, ANNEAL_PORT: '0', ...env }, cwd: root })
  const server = await startServer(settings, { logger: pino({ level: 'silent' }) })
  return { ...server, root, saves, models }
}

/** A finished job whose files are the given ones, or a copy of a folder's. */
export async function publish(
  { application, saves }: PublishedServer,
  kind: 'export' | 'merge',
  id: string,
  contents: Record<string, string | Uint8Array> | string,
): Promise<string> {
  const outputDir = join(saves, `${kind}s`, id)
  mkdirSync(outputDir, { recursive: true })
  if (typeof contents === 'string') cpSync(contents, outputDir, { recursive: true })
  else {
    for (const [path, content] of Object.entries(contents)) {
      mkdirSync(dirname(join(outputDir, path)), { recursive: true })
      writeFileSync(join(outputDir, path), content)
    }
  }
  const { files } = await writeManifest(outputDir, { format: 'safetensors', dtype: 'bfloat16' })
  const model = { id: 'tiny', baseFolder: outputDir, root: 'tiny' }
  const { queue, self } = application
  await queue.submit({
    id,
    kind,
    request: {},
    resolved: { model, format: 'safetensors' },
    outputDir,
    owner: self,
  })
  await queue.claim(kind, self, id)
  await queue.settle(id, { status: 'succeeded', result: { files, bytes: 0 } })
  return outputDir
}
