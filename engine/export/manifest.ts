import { createHash } from 'node:crypto'
import { createReadStream, readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { checkCancelled, writeFileDurably } from '../weights/atomic-folder.ts'

const MANIFEST_FILE = 'manifest.json'
const SUMS_FILE = 'SHA256SUMS'

const schema = z.object({
  version: z.literal(1),
  format: z.string(),
  dtype: z.string(),
  files: z.array(
    z.object({
      path: z.string(),
      bytes: z.int().nonnegative(),
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
    }),
  ),
})

/** What an export holds: each file's name, size and SHA-256, sorted by name. */
export type Manifest = z.infer<typeof schema>
export type ManifestFile = Manifest['files'][number]

/**
 * Hashes the files of a folder and of those in it, and writes SHA256SUMS (as `sha256sum --check` reads it) and manifest.json, which
 * lists SHA256SUMS as well.
 *
 * @param known digests of files that were hashed while they were written, by name.
 */
export async function writeManifest(
  folder: string,
  about: Pick<Manifest, 'format' | 'dtype'>,
  signal?: AbortSignal,
  known: ReadonlyMap<string, string> = new Map(),
): Promise<Manifest> {
  const files: ManifestFile[] = []
  for (const path of filesBelow(folder).sort()) {
    const sha256 = known.get(path)
    const entry = sha256 && { path, bytes: statSync(join(folder, path)).size, sha256 }
    files.push(entry || (await hashFile(folder, path, signal)))
  }
  const sums = files.map(({ path, sha256 }) => `${sha256}  ${path}\n`).join('')
  writeFileDurably(join(folder, SUMS_FILE), sums)
  files.push(await hashFile(folder, SUMS_FILE, signal))
  files.sort((a, b) => (a.path < b.path ? -1 : 1))
  const manifest: Manifest = { version: 1, ...about, files }
  writeFileDurably(join(folder, MANIFEST_FILE), `${JSON.stringify(manifest, null, 2)}\n`)
  return manifest
}

/** Paths of all files below a folder, with forward slashes. */
function filesBelow(folder: string, prefix = ''): string[] {
  return readdirSync(join(folder, prefix), { withFileTypes: true }).flatMap((entry) => {
    const path = `${prefix}${entry.name}`
    return entry.isDirectory() ? filesBelow(folder, `${path}/`) : [path]
  })
}

/** Reads an export's manifest.json. @throws EngineError `not_found` or `invalid`. */
export function readManifest(folder: string): Manifest {
  const path = join(folder, MANIFEST_FILE)
  let content: string
  try {
    content = readFileSync(path, 'utf8')
  } catch (cause) {
    throw new EngineError(
      'not_found',
      'manifest_missing',
      `${path} cannot be read; it is no finished export`,
      { cause },
    )
  }
  try {
    return schema.parse(JSON.parse(content))
  } catch (cause) {
    throw new EngineError('invalid', 'manifest_malformed', `${path} is not a manifest`, { cause })
  }
}

async function hashFile(
  folder: string,
  name: string,
  signal: AbortSignal | undefined,
): Promise<ManifestFile> {
  const path = join(folder, name)
  const hash = createHash('sha256')
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    checkCancelled(signal)
    hash.update(chunk)
  }
  return { path: name, bytes: statSync(path).size, sha256: hash.digest('hex') }
}
