import { existsSync } from 'node:fs'
import { join } from 'node:path'

/** A run's own base, in its folder: the given one with adapters merged in, or without PiSSA's principal part. */
export const DERIVED_BASE = 'derived_base'

/** The base of a run's adapters: its own where it has one. */
export function baseOfRun(outputDir: string, given: string): string {
  const own = join(outputDir, DERIVED_BASE)
  return existsSync(join(own, 'config.json')) ? own : given
}
