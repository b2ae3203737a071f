import { EngineError } from '../../engine/errors.ts'
import type { RemoteFile } from './client.ts'

/** What makes weights a model: config, tokenizer, templates, licence. */
const SMALL = /^(.+\.json|.+\.jinja|.+\.txt|tokenizer\.model|LICENSE[^/]*|NOTICE[^/]*|README\.md)$/i
const WEIGHTS = /^[^/]+\.safetensors$/
/** Pickles and other forms that can run code when they are read. */
const PICKLES = /\.(bin|pt|pth|pkl|pickle|ckpt|h5|msgpack)$/i
/** Larger ones are no configuration. */
const MAX_SMALL_BYTES = 100_000_000

/**
 * The files of a repository that a base model needs: safetensors and the small files beside them, at the top of the
 * repository. Adapters' and other formats' weights stay where they are.
 *
 * @throws EngineError `refused` for a repository whose weights are pickles only, `invalid` for a path that could lead elsewhere, `not_found` for one without a model.
 */
export function selectFiles(repository: string, files: readonly RemoteFile[]): RemoteFile[] {
  for (const { path } of files) checkPath(repository, path)
  const top = files.filter(({ path }) => !path.includes('/'))
  const weights = top.filter(({ path }) => WEIGHTS.test(path) && !path.startsWith('adapter_'))
  const pickle = files.find(({ path }) => PICKLES.test(path))
  if (weights.length === 0 && pickle) {
    throw new EngineError(
      'refused',
      'pickle_refused',
      `${repository} has its weights as ${pickle.path} only. That is a pickle, which can run code when it is read; ` +
        'take a repository or revision with safetensors.',
    )
  }
  if (weights.length === 0 || !top.some(({ path }) => path === 'config.json')) {
    throw new EngineError(
      'not_found',
      'no_model_in_repository',
      `${repository} holds no model folder: it needs config.json and *.safetensors at its top.`,
    )
  }
  const small = top.filter(
    ({ path, size }) =>
      SMALL.test(path) && size <= MAX_SMALL_BYTES && !weights.some((file) => file.path === path),
  )
  return [...small, ...weights]
}

/** Files in which a model asks for code of its own. */
export const MAY_ASK_FOR_CODE = ['config.json', 'tokenizer_config.json']

/** @throws EngineError `refused` when a file asks for classes that the repository brings along. */
export function checkNoRemoteCode(repository: string, path: string, content: unknown): void {
  if (typeof content !== 'object' || content === null || !('auto_map' in content)) return
  throw new EngineError(
    'refused',
    'remote_code_refused',
    `${repository} needs code of its own (auto_map in ${path}). Code from a hub is never run, so the model could not be ` +
      'what it is there.',
  )
}

function checkPath(repository: string, path: string): void {
  const parts = path.split('/')
  const isPlain = !/[\\\0:]/.test(path) && parts.every((part) => part !== '' && part !== '.' && part !== '..')
  if (isPlain) return
  throw new EngineError(
    'invalid',
    'hub_path_refused',
    `${repository} lists ${JSON.stringify(path.slice(0, 200))}, which is no plain path.`,
  )
}
