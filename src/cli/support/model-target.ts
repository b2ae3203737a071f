import { existsSync } from 'node:fs'
import { basename, dirname, join, resolve } from 'node:path'
import { EngineError } from '../../../engine/errors.ts'
import type { Settings } from '../../settings.ts'

/** What a MODEL argument means: an id, and how the settings must be widened for it to be found. */
export interface ModelTarget {
  id: string
  widen(settings: Settings): Settings
}

/**
 * Reads a MODEL argument. The operator's own terminal may name a folder; its parent then counts as a models directory,
 * in front of the configured ones, so that everything behind it deals with ids alone.
 *
 * @throws EngineError `not_found` for a path without a model.
 */
export function readModelTarget(word: string): ModelTarget {
  const folder = resolve(word)
  const isHere = existsSync(join(folder, 'config.json'))
  if (!isHere && (!looksLikePath(word) || HUB_NAME.test(word))) {
    return { id: word, widen: (settings) => settings }
  }
  if (!isHere) {
    throw new EngineError(
      'not_found',
      'model_not_found',
      `${folder} is no model folder: it has no config.json.`,
      { param: 'model' },
    )
  }
  return {
    id: basename(folder),
    widen: ({ directories, ...settings }) => ({
      ...settings,
      directories: { ...directories, models: [dirname(folder), ...directories.models] },
    }),
  }
}

/** ORG/NAME, as hubs have it: the model is known by its name alone. */
const HUB_NAME = /^[A-Za-z0-9][A-Za-z0-9._-]*\/[A-Za-z0-9][A-Za-z0-9._-]*$/

function looksLikePath(word: string): boolean {
  return word.includes('/') || word.includes('\\') || word.startsWith('.')
}
