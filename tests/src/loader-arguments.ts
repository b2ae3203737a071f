import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

/** Node's arguments for a child that runs this module: TypeScript needs tsx, found from here and not from the cwd. */
export function loaderArguments(entry: URL): string[] {
  if (!entry.pathname.endsWith('.ts')) return []
  return ['--import', pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href]
}
