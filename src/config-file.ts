import { createHash } from 'node:crypto'
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { EngineError, messageOf } from '../engine/errors.ts'

const KEPT = join(import.meta.dirname, '../bundle/config.cjs')

/**
 * What a TypeScript file exports as default.
 * @throws EngineError invalid when it cannot be read, throws, or exports no object.
 */
export async function readConfigFile(file: string): Promise<object> {
  let content: unknown
  try {
    content = (await evaluateAlone(file)) ?? (await importFile(file))
  } catch (cause) {
    const reason = messageOf(cause)
    throw new EngineError('invalid', 'config_unreadable', `${file} cannot be read: ${reason}`, { cause })
  }
  if (typeof content !== 'object' || content === null) {
    const message = `${file} must export its settings as default: export default { … }`
    throw new EngineError('invalid', 'config_invalid', message)
  }
  return content
}

/**
 * Evaluates a file that needs nothing but itself, which takes a tenth of the time that a loader needs to get ready.
 * Undefined for other files, and for wrong ones: the loader says best what is wrong.
 */
async function evaluateAlone(file: string): Promise<unknown> {
  const code = await toJavaScript(file)
  if (code === undefined) return undefined
  if (/\b(?:require\s*\(|import\s*[.(]|import_meta\b|await\b|__dirname\b|__filename\b)/.test(code))
    return undefined
  const module: { exports: { default?: unknown } } = { exports: {} }
  new Function('module', code)(module)
  return module.exports.default
}

/** A file's text without types, as CommonJS; undefined for what cannot be read. The last one is kept beside the bundle. */
async function toJavaScript(file: string): Promise<string | undefined> {
  try {
    const text = readFileSync(file, 'utf8')
    const mark = `// ${createHash('sha256').update(text).digest('hex')}\n`
    const kept = existsSync(KEPT) ? readFileSync(KEPT, 'utf8') : ''
    if (kept.startsWith(mark)) return kept
    const { transformSync } = await import('esbuild')
    const { code } = transformSync(text, { loader: 'ts', format: 'cjs', logLevel: 'silent' })
    keep(`${mark}${code}`)
    return code
  } catch {
    return undefined
  }
}

/** The folder may be missing, or somebody else's. */
function keep(text: string): void {
  const temporary = `${KEPT}.${process.pid}`
  try {
    writeFileSync(temporary, text)
    renameSync(temporary, KEPT)
  } catch {
    rmSync(temporary, { force: true })
  }
}

/** tsImport, because a config file may lie in a folder whose package.json, if any, doesn't say "type": "module". */
async function importFile(file: string): Promise<unknown> {
  const { tsImport } = await import('tsx/esm/api')
  const { default: exported } = (await tsImport(pathToFileURL(file).href, import.meta.url)) as {
    default?: unknown
  }
  // Where the file counts as CommonJS, its exports are the default export.
  const isNested = typeof exported === 'object' && exported !== null && 'default' in exported
  return isNested ? exported.default : exported
}
