import { z } from 'zod'
import { EngineError } from '../../engine/errors.ts'
import type { DownloadedFile } from '../download/download-file.ts'
import { fetchRetrying, openFrom, reasonOf } from '../download/fetch-retrying.ts'

export interface HubSettings {
  /** Address of a model hub, such as https://huggingface.co or http://127.0.0.1:8000/hub. */
  endpoint: string
  token?: string
}

/** A file of a repository at one commit. */
export type RemoteFile = Required<DownloadedFile>

const revisionSchema = z.object({ sha: z.string().regex(/^[0-9a-f]{40}$/) })
const treeSchema = z.array(
  z.object({
    type: z.string(),
    path: z.string(),
    size: z.number().int().nonnegative(),
    oid: z.string(),
    lfs: z
      .object({ oid: z.string().regex(/^[0-9a-f]{64}$/), size: z.number().int().nonnegative() })
      .optional(),
  }),
)

/** Pages of a file list; a repository with more is no model. */
const MAX_PAGES = 50

/** Reads repositories of a model hub in Hugging Face's layout. Only the operator's configured endpoint is ever asked. */
export class HubClient {
  readonly #endpoint: string
  readonly #token: string | undefined

  constructor({ endpoint, token }: HubSettings) {
    this.#endpoint = endpoint.replace(/\/+$/, '')
    this.#token = token
  }

  /** The commit that a revision names. @throws EngineError `not_found`, `refused` (no access), `unavailable`. */
  async commit(repository: string, revision: string, signal?: AbortSignal): Promise<string> {
    const path = `/api/models/${repository}/revision/${encodeURIComponent(revision)}`
    return revisionSchema.parse(await this.#json(`${this.#endpoint}${path}`, signal)).sha
  }

  /** All files of a commit. */
  async files(repository: string, commit: string, signal?: AbortSignal): Promise<RemoteFile[]> {
    const files: RemoteFile[] = []
    let url: string | undefined = `${this.#endpoint}/api/models/${repository}/tree/${commit}?recursive=true`
    for (let page = 0; url !== undefined; page++) {
      if (page === MAX_PAGES) throw hubError(`${repository} lists more files than a model has`)
      const response: Response = await this.#request(url, signal)
      for (const { type, path, size, oid, lfs } of parse(treeSchema, await response.json(), url)) {
        if (type !== 'file') continue
        const digest = lfs
          ? ({ algorithm: 'sha256', hex: lfs.oid } as const)
          : ({ algorithm: 'git-sha1', hex: oid } as const)
        files.push({ path, size: lfs?.size ?? size, digest })
      }
      url = this.#nextPage(response)
    }
    return files
  }

  /** Opens a file's content from byte `start` on. A hub that ignores ranges answers with the whole: `start` is then 0. */
  open(
    repository: string,
    commit: string,
    path: string,
    start: number,
    signal?: AbortSignal,
  ): Promise<{ start: number; body: ReadableStream<Uint8Array> }> {
    const encoded = path.split('/').map(encodeURIComponent).join('/')
    const url = `${this.#endpoint}/${repository}/resolve/${commit}/${encoded}`
    return openFrom(url, start, this.#options(url, signal))
  }

  async #json(url: string, signal?: AbortSignal): Promise<unknown> {
    return (await this.#request(url, signal)).json()
  }

  /** A link to the next page must stay on the configured hub: the token goes with it. */
  #nextPage(response: Response): string | undefined {
    const next = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get('link') ?? '')?.[1]
    if (next === undefined) return undefined
    const url = new URL(next, this.#endpoint)
    if (url.origin !== new URL(this.#endpoint).origin)
      throw hubError(`its file list goes on at ${url.origin}`)
    return url.href
  }

  #request(url: string, signal?: AbortSignal): Promise<Response> {
    return fetchRetrying(url, this.#options(url, signal))
  }

  #options(url: string, signal?: AbortSignal) {
    const headers: Record<string, string> =
      this.#token === undefined ? {} : { authorization: `Bearer ${this.#token}` }
    return {
      headers,
      signal,
      onStatus: (response: Response) => statusError(url, response),
      onUnreachable: (cause: unknown) => unreachable(this.#endpoint, cause),
    }
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown, url: string): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  throw hubError(`${new URL(url).pathname} answered in an unknown form: ${result.error.issues[0]?.message}`)
}

export function hubError(problem: string): EngineError {
  return new EngineError('invalid', 'hub_answer_invalid', `The hub cannot be used: ${problem}.`)
}

function statusError(url: string, response: Response): EngineError {
  const said = response.headers.get('x-error-message')?.slice(0, 300)
  const where = `${new URL(url).pathname} answered ${response.status}${said ? `: ${said}` : ''}`
  if (response.status === 401 || response.status === 403) {
    return new EngineError(
      'refused',
      'hub_access_denied',
      `The hub gives no access (${where}). Set HF_TOKEN or hub.token.`,
    )
  }
  if (response.status === 404)
    return new EngineError('not_found', 'hub_not_found', `The hub has no such thing: ${where}.`)
  return new EngineError('unavailable', 'hub_failed', `The hub failed: ${where}.`)
}

function unreachable(endpoint: string, cause: unknown): EngineError {
  return new EngineError(
    'unavailable',
    'hub_unreachable',
    `The hub ${endpoint} cannot be reached (${reasonOf(cause)}). hub.endpoint in the config file or HF_ENDPOINT names another.`,
    { cause },
  )
}
