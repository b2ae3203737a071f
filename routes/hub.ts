import { createRoute, OpenAPIHono, z } from '@hono/zod-openapi'
import type { Context } from 'hono'
import { answerError, defaultHook, RouteError, toHttpError } from './errors.ts'
import { fileDownload, sendDownload } from './files.ts'
import { errors, json, media, missing } from './responses.ts'
import { exampleCommit, pathsInfoRequest, repository, treeEntry } from './schemas/hub.ts'
import type { ExportFile, HubRepository, HubService } from './services.ts'

const tags = ['Hub']
const id = z.string().min(1).openapi({ example: 'export-5d20c8e17f64' })
const revision = z.string().min(1).openapi({ example: 'main', description: '`main` or the commit.' })

const model = createRoute({
  method: 'get',
  path: '/hub/api/models/{id}/revision/{revision}',
  tags,
  summary: 'Describe a repository, as a model hub does',
  description: 'Finished exports and merges are repositories; ids may have the namespace `anneal/` in front.',
  request: { params: z.object({ id, revision }) },
  responses: { 200: json(repository, 'The repository.'), ...errors, ...missing },
})

const tree = createRoute({
  method: 'get',
  path: '/hub/api/models/{id}/tree/{revision}',
  tags,
  summary: 'List the files of a repository',
  request: {
    params: z.object({ id, revision }),
    query: z.object({ recursive: z.string().optional(), expand: z.string().optional() }),
  },
  responses: { 200: json(z.array(treeEntry), 'Files and folders, sorted by path.'), ...errors, ...missing },
})

const pathsInfo = createRoute({
  method: 'post',
  path: '/hub/api/models/{id}/paths-info/{revision}',
  tags,
  summary: 'Describe some files of a repository',
  request: {
    params: z.object({ id, revision }),
    body: { required: true, content: { 'application/json': { schema: pathsInfoRequest } } },
  },
  responses: { 200: json(z.array(treeEntry), 'Those that exist.'), ...errors, ...missing },
})

const resolve = createRoute({
  method: 'get',
  path: '/hub/{id}/resolve/{revision}/{path}',
  tags,
  summary: 'Download a file of a repository',
  description: `Range, If-Range, If-None-Match and HEAD work. X-Repo-Commit is the commit, such as ${exampleCommit}.`,
  request: {
    params: z.object({ id, revision, path: z.string().min(1).openapi({ example: 'config.json' }) }),
  },
  responses: {
    200: media('application/octet-stream', 'The whole content; its SHA-256 digest is the ETag.', 'binary'),
    206: media('application/octet-stream', 'The range that was asked for.', 'binary'),
    ...errors,
    ...missing,
  },
})

/** The namespace that ids may have in front: clients expect `organization/name`. */
const NAMESPACE = 'anneal'

/** X-Error-Code, by which hub clients tell what is missing (huggingface_hub, utils/_http.py). */
type MissingCode = 'RepoNotFound' | 'RevisionNotFound' | 'EntryNotFound'

/**
 * /hub: finished exports and merges in the layout of the Hugging Face hub, for clients with HF_ENDPOINT set to it. The
 * request sequences of the clients are in tests/src/hub-clients.test.ts.
 */
export function hubRoutes(service: HubService): OpenAPIHono {
  const routes = new OpenAPIHono({ defaultHook })
  for (const route of [model, tree, pathsInfo, resolve]) routes.openAPIRegistry.registerPath(route)
  routes.onError(answerHubError)

  // OpenAPI has no word for a path with slashes, and an id may have a namespace: described once, matched in all forms.
  for (const repo of ['/:id', `/${NAMESPACE}/:id`]) {
    const api = `/hub/api/models${repo}`
    const describe = async (c: Context) => c.json(toRepository(await find(service, c)))
    routes.get(api, describe)
    routes.get(`${api}/revision/:revision`, describe)
    const list = async (c: Context) => c.json(entriesOf(await find(service, c), treeQuery(c)))
    routes.get(`${api}/tree/:revision`, list)
    routes.get(`${api}/tree/:revision/:path{.+}`, list)
    routes.post(`${api}/paths-info/:revision`, async (c) => {
      const found = await find(service, c)
      const { paths, expand } = await readPathsInfo(c)
      const entries = entriesOf(found, { folder: '', recursive: true, expand })
      return c.json(entries.filter(({ path }) => paths.includes(path)))
    })
    routes.get(`/hub${repo}/resolve/:revision/:path{.+}`, async (c) => sendFile(c, service))
  }
  return routes
}

async function sendFile(c: Context, service: HubService): Promise<Response> {
  const found = await find(service, c)
  // Clients remember by the commit that a file is not there, so it goes out with the 404 as well.
  c.header('x-repo-commit', found.commit)
  const path = c.req.param('path') ?? ''
  if (!found.files.some((file) => file.path === path)) {
    throw missingError('EntryNotFound', `${found.id} has no file ${JSON.stringify(path.slice(0, 200))}.`)
  }
  const response = await sendDownload(c, fileDownload(await service.file(found.id, path)))
  response.headers.set('x-repo-commit', found.commit)
  return response
}

/** The repository and revision that a request names. */
async function find(service: HubService, c: Context): Promise<HubRepository> {
  const found = await service.repository(c.req.param('id') ?? '').catch((error: unknown) => {
    if (toHttpError(error).status !== 404) throw error
    throw missingError('RepoNotFound', (error as Error).message)
  })
  const wanted = c.req.param('revision') ?? 'main'
  if (['main', 'HEAD', found.commit].includes(wanted)) return found
  throw missingError('RevisionNotFound', `${found.id} has the revisions main and ${found.commit} only.`)
}

class MissingError extends RouteError {
  readonly hubCode: MissingCode

  constructor(hubCode: MissingCode, message: string) {
    super('not_found', hubCode, message)
    this.hubCode = hubCode
  }
}

const missingError = (code: MissingCode, message: string) => new MissingError(code, message)

function answerHubError(error: Error, c: Context): Response {
  const response = answerError(error, c)
  if (error instanceof MissingError) response.headers.set('x-error-code', error.hubCode)
  const { body } = toHttpError(error)
  // A header holds ASCII: what a client asked for may not be.
  response.headers.set('x-error-message', body.error.message.replace(/[^\x20-\x7e]/g, '?'))
  return response
}

function toRepository({ id, commit, createdAt, files }: HubRepository) {
  return {
    _id: commit.slice(0, 24),
    id,
    modelId: id,
    author: NAMESPACE,
    sha: commit,
    createdAt: createdAt.toISOString(),
    lastModified: createdAt.toISOString(),
    private: false,
    gated: false as const,
    disabled: false,
    downloads: 0,
    likes: 0,
    tags: [],
    pipeline_tag: 'text-generation',
    library_name: 'transformers',
    siblings: files.map(({ path }) => ({ rfilename: path })),
  }
}

interface TreeQuery {
  /** Without slash at its end; empty is the whole repository. */
  folder: string
  recursive: boolean
  expand: boolean
}

const isTrue = (value: string | undefined) => value === 'true' || value === 'True' || value === '1'

function treeQuery(c: Context): TreeQuery {
  return {
    folder: c.req.param('path') ?? '',
    recursive: isTrue(c.req.query('recursive')),
    expand: isTrue(c.req.query('expand')),
  }
}

/** The files below a folder and the folders that they lie in. */
function entriesOf(found: HubRepository, { folder, recursive, expand }: TreeQuery) {
  const prefix = folder === '' ? '' : `${folder}/`
  const inside = found.files.filter(({ path }) => path.startsWith(prefix))
  if (inside.length === 0 && folder !== '') {
    throw missingError('EntryNotFound', `${found.id} has no folder ${JSON.stringify(folder.slice(0, 200))}.`)
  }
  const folders = new Set(
    inside.flatMap(({ path }) => foldersOf(path)).filter((path) => path.startsWith(prefix)),
  )
  const isDirect = (path: string) => recursive || !path.slice(prefix.length).includes('/')
  const commit = expand
    ? { lastCommit: { id: found.commit, title: found.id, date: found.createdAt.toISOString() } }
    : {}
  const entries = [
    ...inside.map((file) => ({ ...fileEntry(file), ...commit })),
    ...[...folders].map((path) => ({
      type: 'directory' as const,
      oid: found.commit,
      size: 0,
      path,
      ...commit,
    })),
  ]
  return entries.filter(({ path }) => isDirect(path)).sort((a, b) => (a.path < b.path ? -1 : 1))
}

/** `a` and `a/b` of `a/b/c`. */
function foldersOf(path: string): string[] {
  const parts = path.split('/')
  return parts.slice(1).map((_, depth) => parts.slice(0, depth + 1).join('/'))
}

/** Git LFS names what it stores by SHA-256, and so every file here is described as stored by it. */
function fileEntry({ path, bytes, sha256 }: ExportFile) {
  const pointerSize = `version https://git-lfs.github.com/spec/v1\noid sha256:${sha256}\nsize ${bytes}\n`
    .length
  const lfs = { oid: sha256, size: bytes, pointerSize }
  return { type: 'file' as const, oid: sha256.slice(0, 40), size: bytes, path, lfs }
}

/** JSON or a form: clients send either. */
async function readPathsInfo(c: Context): Promise<{ paths: string[]; expand: boolean }> {
  const isForm = (c.req.header('content-type') ?? '')
    .toLowerCase()
    .startsWith('application/x-www-form-urlencoded')
  const body = isForm ? await c.req.parseBody({ all: true }) : await c.req.json()
  const { paths, expand } = pathsInfoRequest.parse(body)
  return { paths: typeof paths === 'string' ? [paths] : paths, expand: isTrue(String(expand)) }
}
