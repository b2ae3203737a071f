import { createHash } from 'node:crypto'
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { Script } from 'node:vm'

export const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), '..')
export const bundleFolder = join(packageRoot, 'bundle')
export const manifestFile = join(bundleFolder, 'manifest.json')

/**
 * What a bundle's manifest holds: its programs, by the path of the module that they begin with, and every file that went
 * into them. Paths start at the package's folder and have slashes.
 * @typedef {[size: number, mtimeMs: number, sha256: string]} Stamp
 * @typedef {{ programs: Record<string, string>, inputs: Record<string, Stamp> }} Manifest
 */

/**
 * Runs one of this package's programs in this process or thread: from the bundle (bin/bundle.js) where there is one and no
 * file has changed since it was made, else from its TypeScript through tsx, which takes a second longer. Stack traces
 * under ANNEAL_DEBUG are those of the sources.
 *
 * @param {string} entry the module's path, absolute or below the package's folder
 */
export async function runProgram(entry) {
  const path = resolve(packageRoot, entry)
  const bundled = process.env.ANNEAL_DEBUG ? undefined : bundledProgram(path)
  if (bundled !== undefined) return runBundled(bundled)
  const { register } = await import('tsx/esm/api')
  register()
  await import(pathToFileURL(path).href)
}

/**
 * What tells whether a file is the one that it was.
 * @returns {Stamp}
 */
export function fileStamp(path) {
  const { size, mtimeMs } = statSync(`${packageRoot}/${path}`)
  return [size, mtimeMs, digestOf(path)]
}

/** The content decides where only the time differs: copies, checkouts and images change it. */
function isUnchanged(path, [size, mtimeMs, digest]) {
  const info = statSync(`${packageRoot}/${path}`, { throwIfNoEntry: false })
  if (info?.size !== size) return false
  return info.mtimeMs === mtimeMs || digestOf(path) === digest
}

function digestOf(path) {
  return createHash('sha256')
    .update(readFileSync(`${packageRoot}/${path}`))
    .digest('hex')
}

/** The bundled form of a module and its text, if it has one that is as new as its sources. */
function bundledProgram(path) {
  const manifest = readManifest()
  const name = manifest?.programs[relative(packageRoot, path).split(sep).join('/')]
  if (name === undefined) return undefined
  for (const input in manifest.inputs) if (!isUnchanged(input, manifest.inputs[input])) return undefined
  const file = join(bundleFolder, name)
  // ASCII alone, so that V8 keeps it at one byte a character.
  const source = read(file)?.toString('latin1')
  return source && { file, source }
}

/** Evaluates a bundle: a function's text. */
function runBundled({ file, source }) {
  const script = withCodeCache(file, (cachedData) => new Script(source, { filename: file, cachedData }))
  const sourceUrl = (path) => pathToFileURL(join(packageRoot, path)).href
  const sourceFolder = (path) => dirname(join(packageRoot, path))
  const importPackage = (name) => import(name)
  const module = { exports: {} }
  const run = script.runInThisContext()
  run(
    module.exports,
    createRequire(file),
    module,
    file,
    dirname(file),
    sourceUrl,
    sourceFolder,
    importPackage,
  )
}

/**
 * Compiles a script with V8's code of an earlier process. Where that is missing, or is of another build of V8, this process
 * leaves its own when it ends, with the functions that it has used.
 */
function withCodeCache(file, compile) {
  const cacheFile = `${file}.${process.version}-${process.arch}.cache`
  const script = compile(read(cacheFile))
  if (script.cachedDataRejected !== false) process.once('exit', () => keep(cacheFile, script))
  return script
}

function read(file) {
  try {
    return readFileSync(file)
  } catch {
    return undefined
  }
}

/** @returns {Manifest | undefined} */
function readManifest() {
  const bytes = read(manifestFile)
  return bytes && JSON.parse(bytes)
}

/** The folder may be somebody else's, and a later start does without just as well. */
function keep(cacheFile, script) {
  const temporary = `${cacheFile}.${process.pid}`
  try {
    writeFileSync(temporary, script.createCachedData())
    renameSync(temporary, cacheFile)
  } catch {
    rmSync(temporary, { force: true })
  }
}
