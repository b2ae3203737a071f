/**
 * The README's commands on other versions of Node, each in a clone of what is committed:
 *
 *     npm run test:nodes                 # 22, 24 and 26
 *     npm run test:nodes -- 24 26:11     # chosen ones, and Node 26 with npm 11
 *
 * Node itself and its headers come from npm packages (Linux and macOS). Exit code 1 where a command failed.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join, resolve } from 'node:path'
import { SHARED } from './shared.ts'

/** Each with an npm that its users have. */
const VERSIONS = ['22:10', '24:11', '26:12']

const COMMANDS = ['npm install', 'npm run demo', 'npm run bundle', 'npx anneal doctor', 'npm test']

const root = resolve(import.meta.dirname, '..')

interface Result {
  node: string
  npm: string
  command: string
  seconds: number
  ok: boolean
}

/** Runs the commands in order, in a folder that is removed at the end; what follows a failed install is left out. */
function tryVersion(version: string): Result[] {
  const [node = '', npm = '12'] = version.split(':')
  const folder = mkdtempSync(join(tmpdir(), `anneal-node-${node}-`))
  try {
    const env = installNode(join(folder, 'node'), node, npm)
    run('git', ['clone', '--quiet', root, join(folder, 'anneal')], { cwd: folder, env })
    if (existsSync(SHARED)) symlinkSync(resolve(SHARED), join(folder, 'shared'))
    const results: Result[] = []
    for (const command of COMMANDS) {
      console.log(`\n== Node ${node}, npm ${npm}: ${command}`)
      const start = performance.now()
      const ok = succeeds('sh', ['-c', command], { cwd: join(folder, 'anneal'), env })
      results.push({ node, npm, command, seconds: Math.round((performance.now() - start) / 1000), ok })
      if (!ok && command === 'npm install') break
    }
    return results
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Installs Node and npm into a folder; returns an environment in which they are the ones that are found. */
function installNode(folder: string, node: string, npm: string): NodeJS.ProcessEnv {
  const name = `node-${process.platform}-${process.arch}`
  const packages = [`${name}@${node}`, `npm@${npm}`]
  const flags = ['--ignore-scripts', '--force', '--no-save', '--silent']
  run('npm', ['install', ...flags, '--prefix', folder, ...packages], { cwd: tmpdir(), env: process.env })
  const modules = join(folder, 'node_modules')
  const path = `${join(modules, '.bin')}${delimiter}${process.env.PATH}`
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^npm_|^INIT_CWD$/i.test(key)),
  )
  // What is built from source finds the headers of this Node.
  return { ...env, PATH: path, npm_config_nodedir: join(modules, name) }
}

interface Place {
  cwd: string
  env: NodeJS.ProcessEnv
}

function succeeds(command: string, args: string[], place: Place): boolean {
  const { status, error } = spawnSync(command, args, { ...place, stdio: 'inherit' })
  if (error) throw error
  return status === 0
}

function run(command: string, args: string[], place: Place): void {
  if (!succeeds(command, args, place)) throw new Error(`${command} ${args.join(' ')} failed.`)
}

const wanted = process.argv.slice(2)
const results = (wanted.length > 0 ? wanted : VERSIONS).flatMap(tryVersion)
console.table(results)
process.exitCode = results.every(({ ok }) => ok) ? 0 : 1
