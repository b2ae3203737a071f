import { createHash } from 'node:crypto'
import { closeSync, openSync, readdirSync, readFileSync, readSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'

export const MANIFEST_FILE = 'manifest.json'

const manifestSchema = z.object({
  files: z.record(z.string(), z.object({ bytes: z.number(), sha256: z.string() })),
})

/** Lists the folder's files with size and digest in manifest.json. */
export function writeManifest(folder: string): void {
  const names = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name !== MANIFEST_FILE)
    .map((entry) => entry.name)
  const files = Object.fromEntries(
    names.sort().map((name) => {
      const path = join(folder, name)
      return [name, { bytes: statSync(path).size, sha256: digest(path) }]
    }),
  )
  writeFileSync(join(folder, MANIFEST_FILE), `${JSON.stringify({ files }, null, 2)}\n`)
}

/** What is wrong with a folder by its manifest, in words; undefined when every listed file is there unchanged. */
export function manifestProblem(folder: string): string | undefined {
  let files: z.output<typeof manifestSchema>['files']
  try {
    files = manifestSchema.parse(JSON.parse(readFileSync(join(folder, MANIFEST_FILE), 'utf8'))).files
  } catch {
    return `${MANIFEST_FILE} is missing or unreadable`
  }
  for (const [name, { bytes, sha256 }] of Object.entries(files)) {
    const path = join(folder, name)
    const size = statSync(path, { throwIfNoEntry: false })?.size
    if (size === undefined) return `${name} is missing`
    if (size !== bytes) return `${name} has ${size} bytes, ${bytes} expected`
    if (digest(path) !== sha256) return `${name} was changed or damaged`
  }
  return undefined
}

/** SHA-256 of a file in hex, read piece by piece. */
function digest(path: string): string {
  const hash = createHash('sha256')
  const piece = Buffer.allocUnsafe(1 << 20)
  const descriptor = openSync(path, 'r')
  try {
    for (let read = readSync(descriptor, piece); read > 0; read = readSync(descriptor, piece)) {
      hash.update(piece.subarray(0, read))
    }
  } finally {
    closeSync(descriptor)
  }
  return hash.digest('hex')
}
