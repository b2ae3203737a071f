import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'

const PUBLIC_PYPI = 'https://pypi.org/simple'
const PUBLIC_NPM = 'https://registry.npmjs.org'

/** The index that pip would ask: PIP_INDEX_URL, then pip's configuration files, the nearest first, then the public one. */
export function pypiIndex(env: NodeJS.ProcessEnv = process.env): string {
  const home = env.HOME ?? homedir()
  const files = [
    env.PIP_CONFIG_FILE,
    env.VIRTUAL_ENV && join(env.VIRTUAL_ENV, 'pip.conf'),
    join(env.XDG_CONFIG_HOME || join(home, '.config'), 'pip/pip.conf'),
    join(home, '.pip/pip.conf'),
    '/etc/pip.conf',
  ]
  return env.PIP_INDEX_URL || firstDefined(files, indexInFile) || PUBLIC_PYPI
}

function firstDefined<T>(items: readonly (T | undefined)[], find: (item: T) => string | undefined) {
  for (const item of items) {
    const found = item && find(item)
    if (found) return found
  }
  return undefined
}

/** `index-url` below [download], [install] or [global] of a pip.conf. */
function indexInFile(file: string): string | undefined {
  if (!existsSync(file)) return undefined
  const values = new Map<string, string>()
  let section = ''
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    section = /^\s*\[(.+)\]\s*$/.exec(line)?.[1] ?? section
    const url = /^\s*index[-_]url\s*[=:]\s*(\S+)\s*$/.exec(line)?.[1]
    if (url) values.set(section, url)
  }
  return values.get('download') ?? values.get('install') ?? values.get('global')
}

/** The registry that npm would ask for a package: npm itself knows its configuration best. */
export async function npmRegistry(name: string): Promise<string> {
  const scope = /^(@[^/]+)\//.exec(name)?.[1]
  const keys = [...(scope ? [`${scope}:registry`] : []), 'registry']
  for (const key of keys) {
    try {
      // npm is a batch file on Windows, which only a shell starts
      const shell = process.platform === 'win32'
      const { stdout } = await promisify(execFile)('npm', ['config', 'get', key], { shell })
      const value = stdout.trim()
      if (/^https?:\/\//.test(value)) return value
    } catch {
      break // no npm on the path
    }
  }
  return PUBLIC_NPM
}
