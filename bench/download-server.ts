/** Serves a folder as a finished export until it is killed. Arguments: root, folder, id. Prints its address. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { pino } from 'pino'
import { writeManifest } from '../engine/export/manifest.ts'
import { startServer } from '../src/main.ts'
import { loadSettings } from '../src/settings.ts'

const [root, folder, id] = process.argv.slice(2) as [string, string, string]
mkdirSync(join(root, 'models'))
const env = {
  ANNEAL_MODELS_DIR: join(root, 'models'),
  ANNEAL_DATA_DIR: root,
  ANNEAL_SAVES_DIR: join(root, 'saves'),
  ANNEAL_PORT: '0',
}
const { files } = await writeManifest(folder, { format: 'safetensors', dtype: 'bfloat16' })
const server = await startServer(await loadSettings({ env, cwd: root }), {
  logger: pino({ level: 'silent' }),
})
const { queue, self } = server.application
const model = { id: 'bench', baseFolder: folder, root: 'bench' }
await queue.submit({ id, kind: 'export', request: {}, resolved: { model }, outputDir: folder, owner: self })
await queue.claim('export', self, id)
await queue.settle(id, { status: 'succeeded', result: { files, bytes: 0 } })
console.log(server.url)
