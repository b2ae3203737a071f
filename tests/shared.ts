import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** The reference material beside the checkout, which only some machines have. */
export const SHARED = fileURLToPath(new URL('../../shared/', import.meta.url))

/** A suffix for titles of tests that are skipped without the reference material. */
export const NEEDS_SHARED = '(skipped without ../shared)'

export function sharedMissing(path = ''): boolean {
  return !existsSync(`${SHARED}${path}`)
}
