// Makes the bundle that bin/program.js starts from: `npm install` runs this, and `npm run bundle`.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, relative, sep } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { bundleFolder, fileStamp, manifestFile, packageRoot } from './program.js'

/** The modules that a process or a thread begins with. */
const PROGRAMS = {
  cli: 'src/cli/main.ts',
  host: 'src/engine-host/host.ts',
  worker: 'src/tasks/worker.ts',
  selfTest: 'src/device/self-test-child.ts',
  checker: 'engine/generate/grammar/checker-worker.ts',
}

/** Packages that stay packages: they hold binaries, or files that they look for beside themselves. */
const EXTERNAL = [
  'tsx',
  'tsx/*',
  'esbuild',
  'onnxruntime-node',
  'koffi',
  'better-sqlite3',
  '@node-rs/jieba',
  '@node-rs/jieba/*',
  '@resvg/resvg-js',
]

/** What bin/program.js gives to a bundle. */
const PARAMETERS = 'exports, require, module, __filename, __dirname, __sourceUrl, __sourceFolder, __import'

/** A rehearsal that hangs is given up. */
const REHEARSAL_MS = 60_000

const slashed = (path) => path.split(sep).join('/')

/**
 * import.meta of a source goes on meaning the source, so that what is looked up beside it is found. A script from V8's code
 * cache cannot import, and require would find tsx's CommonJS form, which looks for its loader in the wrong folder.
 */
const sourcesKnowTheirPlace = {
  name: 'sources know their place',
  setup(build) {
    build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
      const place = JSON.stringify(slashed(relative(packageRoot, path)))
      const contents = readFileSync(path, 'utf8')
        .replaceAll('import.meta.url', `__sourceUrl(${place})`)
        .replaceAll('import.meta.dirname', `__sourceFolder(${place})`)
        .replaceAll("import('tsx/esm/api')", "__import('tsx/esm/api')")
      return { loader: 'ts', contents }
    })
  },
}

/** The file that tells of a change: a package's files change with its manifest. */
function changing(path) {
  const [packageFolder] = /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path) ?? []
  return packageFolder ? `${packageFolder}/package.json` : path
}

/** Bundles every program into one file each, with a manifest that says what of; the folder appears whole. */
async function makeBundle() {
  const { build } = await import('esbuild')
  const folder = `${bundleFolder}.${process.pid}`
  const { metafile } = await build({
    absWorkingDir: packageRoot,
    entryPoints: PROGRAMS,
    outdir: folder,
    outExtension: { '.js': '.cjs' },
    bundle: true,
    format: 'cjs',
    platform: 'node',
    target: 'node20',
    charset: 'ascii',
    // What is imported when it is needed stays in the file, as a function that is called then.
    supported: { 'dynamic-import': false },
    external: EXTERNAL,
    plugins: [sourcesKnowTheirPlace],
    banner: { js: `(function (${PARAMETERS}) {` },
    footer: { js: '})' },
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
  })
  const programs = {}
  for (const [output, { entryPoint }] of Object.entries(metafile.outputs)) {
    programs[entryPoint] = basename(output)
  }
  const paths = [
    ...Object.keys(metafile.inputs).map(changing),
    'bin/bundle.js',
    'bin/program.js',
    'tsconfig.json',
  ]
  const inputs = Object.fromEntries([...new Set(paths)].map((path) => [path, fileStamp(path)]))
  writeFileSync(join(folder, basename(manifestFile)), JSON.stringify({ programs, inputs }))
  rmSync(bundleFolder, { recursive: true, force: true })
  renameSync(folder, bundleFolder)
}

/**
 * Starts the server once on a free port of the loopback and has it answer a question, so that V8's code of all that is
 * lies ready for the next start. Everything works without, a little later.
 */
async function rehearse() {
  const folder = mkdtempSync(join(tmpdir(), 'anneal-bundle-'))
  const config = {
    directories: {
      models: [join(packageRoot, 'data/models')],
      datasets: join(packageRoot, 'data'),
      saves: folder,
    },
    server: { port: 0 },
    chat: { preload: ['anneal-tiny'], threads: 1 },
  }
  const configFile = join(folder, 'rehearsal.config.ts')
  writeFileSync(configFile, `export default ${JSON.stringify(config)}`)
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('ANNEAL_')))
  const server = spawn(process.execPath, [join(packageRoot, 'bin/anneal.js'), 'serve'], {
    env: { ...env, ANNEAL_CONFIG: configFile },
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const timer = setTimeout(() => server.kill('SIGKILL'), REHEARSAL_MS)
  const ended = new Promise((resolve) => server.once('close', resolve))
  try {
    await play(await addressOf(server))
    server.kill('SIGTERM')
    await ended
  } finally {
    clearTimeout(timer)
    server.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  }
}

async function addressOf(server) {
  for await (const line of createInterface(server.stdout)) {
    const { url } = JSON.parse(line)
    if (url) {
      server.stdout.resume()
      return url
    }
  }
  throw new Error('the server did not start')
}

async function play(url) {
  for (;;) {
    const { status, error } = await (await fetch(`${url}/health`)).json()
    if (status === 'ok') break
    if (error.code !== 'starting') throw new Error(error.message)
    await sleep(50)
  }
  const answer = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model: 'anneal-tiny',
      messages: [{ role: 'user', content: 'Hello!' }],
      max_tokens: 4,
      stream: true,
    }),
  })
  await answer.text()
}

try {
  await makeBundle()
  await rehearse().catch(() => {})
} catch (error) {
  // An install must not fail for this: without a bundle programs start from their sources.
  rmSync(manifestFile, { force: true })
  console.error(`The bundle was not made, so programs start a second later: ${error.message}`)
  if (process.env.npm_lifecycle_event !== 'postinstall') process.exitCode = 1
}
