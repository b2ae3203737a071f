import { basename } from 'node:path'
import { z } from 'zod'
import { EngineError } from '../../../engine/errors.ts'
import type { DownloadedFile, FileSource } from '../../download/download-file.ts'
import { fetchRetrying, openFrom, reasonOf } from '../../download/fetch-retrying.ts'
import { KNOWN_PROVIDERS } from './known-providers.ts'

/** The package of PyPI whose wheels hold the CUDA library. */
const PYPI_PACKAGE = 'onnxruntime-gpu'

/** A wheel as an index lists it. */
interface Wheel {
  filename: string
  url: string
  sha256: string | undefined
  size: number | undefined
}

const simpleSchema = z.object({
  files: z.array(
    z.object({
      filename: z.string(),
      url: z.string(),
      hashes: z.record(z.string(), z.string()),
      size: z.number().optional(),
      yanked: z.union([z.boolean(), z.string()]).optional(),
    }),
  ),
})
const npmSchema = z.object({ dist: z.object({ tarball: z.url(), integrity: z.string().optional() }) })

/**
 * Finds the wheel of one version in an index with PyPI's simple interface, as JSON (PEP 691) or HTML (PEP 503).
 * @throws EngineError `not_found` naming the versions that the index has.
 */
export async function findWheel(version: string, index: string, signal?: AbortSignal): Promise<FileSource> {
  const page = `${addressOf(index)}/${PYPI_PACKAGE}/`
  const accept = 'application/vnd.pypi.simple.v1+json, text/html;q=0.5'
  const response = await request(page, signal, { accept })
  const isJson = response.headers.get('content-type')?.includes('json') ?? false
  const wheels = isJson
    ? wheelsOfJson(await response.json(), page)
    : wheelsOfHtml(await response.text(), page)
  const fits = wheels.filter(({ filename }) => isWheelOf(filename, version))
  const known = Object.values(KNOWN_PROVIDERS[version]?.sha256['libonnxruntime_providers_cuda.so'] ?? {})
  // A wheel whose library is known goes first, in the order of the list.
  const best =
    known
      .map((origin) => fits.find(({ filename }) => filename.includes(`-${origin.split(' ').at(-1)}-`)))
      .find((wheel) => wheel !== undefined) ?? fits[0]
  if (best === undefined) throw noWheel(version, wheels, page)
  const size = best.size ?? (await sizeOf(best.url, signal))
  const digest = best.sha256 ? ({ algorithm: 'sha256', hex: best.sha256 } as const) : undefined
  return download(best.url, { path: best.filename, size, ...(digest && { digest }) })
}

function isWheelOf(filename: string, version: string): boolean {
  return filename.startsWith(`onnxruntime_gpu-${version}-`) && /manylinux.*_x86_64\.whl$/.test(filename)
}

function noWheel(version: string, wheels: Wheel[], page: string): EngineError {
  const versions = wheels.map(({ filename }) => /^onnxruntime_gpu-([^-]+)-/.exec(filename)?.[1])
  const listed = [...new Set(versions.filter((name) => name !== undefined))].slice(-8).join(', ') || 'none'
  const message =
    `${shownUrl(page)} lists no wheel of ${PYPI_PACKAGE} ${version} for Linux x64 (newest versions there: ${listed}). ` +
    'The version must be that of the installed onnxruntime-node.'
  return new EngineError('not_found', 'provider_not_found', message, { param: 'from' })
}

function wheelsOfJson(content: unknown, page: string): Wheel[] {
  const parsed = simpleSchema.safeParse(content)
  if (!parsed.success) throw unknownForm(page)
  return parsed.data.files
    .filter(({ yanked }) => !yanked)
    .map(({ filename, url, hashes, size }) => {
      return { filename, url: new URL(url, page).href, sha256: hashes.sha256, size }
    })
}

function wheelsOfHtml(content: string, page: string): Wheel[] {
  const links = content.matchAll(/<a\s[^>]*?href="([^"]+)"([^>]*)>([^<]+)<\/a>/gi)
  return [...links].flatMap(([, href, attributes, text]) => {
    if (/data-yanked/i.test(attributes!)) return []
    const url = new URL(href!.replaceAll('&amp;', '&'), page)
    const sha256 = /^#sha256=([0-9a-f]{64})$/.exec(url.hash)?.[1]
    url.hash = ''
    return [{ filename: text!.trim(), url: url.href, sha256, size: undefined }]
  })
}

/** Finds a package of an npm registry, given as NAME or NAME@VERSION. */
export async function findNpmPackage(
  word: string,
  registry: string,
  signal?: AbortSignal,
): Promise<FileSource> {
  const [, name, version = 'latest'] = /^((?:@[\w.-]+\/)?[\w.-]+)(?:@([\w.+-]+))?$/.exec(word) ?? []
  if (name === undefined) {
    const message = `${JSON.stringify(word)} names no npm package; write npm:NAME or npm:NAME@VERSION.`
    throw new EngineError('invalid', 'invalid_package', message, { param: 'from' })
  }
  const url = `${addressOf(registry)}/${name.replace('/', '%2f')}/${version}`
  const parsed = npmSchema.safeParse(await (await request(url, signal)).json())
  if (!parsed.success) throw unknownForm(url)
  const { tarball, integrity } = parsed.data.dist
  const sha512 = /sha512-([A-Za-z0-9+/=]+)/.exec(integrity ?? '')?.[1]
  const digest = sha512
    ? ({ algorithm: 'sha512', hex: Buffer.from(sha512, 'base64').toString('hex') } as const)
    : undefined
  const size = await sizeOf(tarball, signal)
  return download(tarball, { path: fileNameOf(tarball), size, ...(digest && { digest }) })
}

/** A file at an address that the operator names. */
export async function findAtUrl(url: string, sha256?: string, signal?: AbortSignal): Promise<FileSource> {
  const size = await sizeOf(url, signal)
  const digest = sha256 ? ({ algorithm: 'sha256', hex: sha256 } as const) : undefined
  return download(url, { path: fileNameOf(url), size, ...(digest && { digest }) })
}

/** @throws EngineError `invalid` for a registry that is no HTTP address. */
function addressOf(registry: string): string {
  if (/^https?:\/\//.test(registry) && URL.canParse(registry)) return registry.replace(/\/+$/, '')
  const message = `${JSON.stringify(registry)} is no registry; it must be an address that begins with http:// or https://.`
  throw new EngineError('invalid', 'invalid_index', message, { param: 'index' })
}

/** An address without what may be a password in it. */
export function shownUrl(url: string): string {
  const shown = new URL(url)
  shown.username = ''
  shown.password = ''
  shown.search = ''
  return shown.href
}

function fileNameOf(url: string): string {
  const name = basename(decodeURIComponent(new URL(url).pathname))
  return /^[\w.+-]{1,200}$/.test(name) && !name.startsWith('.') ? name : 'archive'
}

function download(url: string, file: DownloadedFile): FileSource {
  return {
    file,
    open: (start, signal) => {
      const { address, ...options } = addressOptions(url, signal)
      return openFrom(address, start, options)
    },
  }
}

async function sizeOf(url: string, signal?: AbortSignal): Promise<number> {
  const response = await request(url, signal, { 'accept-encoding': 'identity' })
  await response.body?.cancel()
  const size = Number(response.headers.get('content-length') ?? Number.NaN)
  if (Number.isInteger(size)) return size
  throw new EngineError('invalid', 'download_size_unknown', `${shownUrl(url)} does not say how long it is.`)
}

function request(url: string, signal?: AbortSignal, headers: Record<string, string> = {}): Promise<Response> {
  const { address, ...options } = addressOptions(url, signal)
  return fetchRetrying(address, { ...options, headers: { ...options.headers, ...headers } })
}

/** fetch takes no user and password inside an address, so they go into a header. */
function addressOptions(url: string, signal?: AbortSignal) {
  const address = new URL(url)
  const { username, password } = address
  address.username = ''
  address.password = ''
  const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  const headers: Record<string, string> =
    username === '' ? {} : { authorization: `Basic ${Buffer.from(credentials).toString('base64')}` }
  return {
    address: address.href,
    headers,
    signal,
    onStatus: (response: Response) => statusError(url, response),
    onUnreachable: (cause: unknown) => unreachable(url, cause),
  }
}

function statusError(url: string, { status }: Response): EngineError {
  const where = `${shownUrl(url)} answered ${status}`
  if (status === 404)
    return new EngineError('not_found', 'download_not_found', `${where}: there is no such thing.`)
  if (status === 401 || status === 403)
    return new EngineError('refused', 'download_access_denied', `${where}: it gives no access.`)
  return new EngineError('unavailable', 'download_failed', `${where}.`)
}

function unreachable(url: string, cause: unknown): EngineError {
  const message =
    `${new URL(url).host} cannot be reached (${reasonOf(cause)}). ` +
    '--index names another registry, --from FILE takes what was fetched on another machine.'
  return new EngineError('unavailable', 'download_unreachable', message, { cause })
}

function unknownForm(url: string): EngineError {
  return new EngineError(
    'invalid',
    'registry_answer_invalid',
    `${shownUrl(url)} answered in an unknown form.`,
  )
}
