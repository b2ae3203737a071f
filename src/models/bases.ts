import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../../engine/errors.ts'
import { checkVacant } from '../../engine/weights/atomic-folder.ts'
import { ID_PREFIX } from '../jobs/types.ts'

/** A base model's id is its folder's name. */
const BASE_ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

/** What the ids of jobs look like; a base folder of such a name would hide a job's model. */
const JOB_ID = new RegExp(`^(${Object.values(ID_PREFIX).join('|')})-[0-9a-f]{12}$`)

const NAME_RULE =
  "up to 100 letters of ASCII, digits, '.', '_' and '-', beginning with a letter or digit, and not like the id of a job"

/**
 * The base models in the models directories: subfolders with a config.json, by id. Of equal names the first directory's
 * counts. Read anew on each call, so that a folder that is copied in counts at once.
 */
export function findBases(directories: readonly string[]): Map<string, { folder: string; createdAt: Date }> {
  const bases = new Map<string, { folder: string; createdAt: Date }>()
  for (const { name, folder, config } of modelFolders(directories)) {
    if (bases.has(name) || !isBaseId(name)) continue
    bases.set(name, { folder, createdAt: statSync(config).mtime })
  }
  return bases
}

/** Model folders whose names cannot be ids, which are therefore no base models: what to tell their owner. */
export function misnamedFolders(directories: readonly string[]): Array<{ folder: string; reason: string }> {
  const reason = `its name would be the model's id, so rename it: ${NAME_RULE}`
  return [...modelFolders(directories)].flatMap(({ name, folder }) =>
    isBaseId(name) || name.startsWith('.') ? [] : [{ folder, reason }],
  )
}

/**
 * Where a new base model goes: in the first models directory, under its id.
 *
 * @throws EngineError `invalid` for a name that cannot be an id, `conflict` for one that is taken.
 */
export function newBaseFolder(directories: readonly string[], name: string): string {
  if (!isBaseId(name)) {
    throw new EngineError(
      'invalid',
      'invalid_model_name',
      `The name ${JSON.stringify(name.slice(0, 120))} cannot be a model's id: ${NAME_RULE}.`,
      { param: 'name' },
    )
  }
  const taken = findBases(directories).get(name)
  if (taken) {
    throw new EngineError(
      'conflict',
      'model_exists',
      `There is a base model ${name} already, in ${taken.folder}.`,
      {
        param: 'name',
      },
    )
  }
  const folder = join(directories[0]!, name)
  checkVacant(folder)
  return folder
}

const isBaseId = (name: string) => BASE_ID.test(name) && !JOB_ID.test(name)

function* modelFolders(directories: readonly string[]) {
  for (const directory of directories) {
    for (const name of subfolders(directory)) {
      const folder = join(directory, name)
      const config = join(folder, 'config.json')
      if (existsSync(config)) yield { name, folder, config }
    }
  }
}

function subfolders(directory: string): string[] {
  if (!existsSync(directory)) return []
  return readdirSync(directory, { withFileTypes: true })
    .filter((entry) => entry.isDirectory() || entry.isSymbolicLink())
    .map((entry) => entry.name)
    .sort()
}
