import { existsSync, readdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Hono } from 'hono'
import { RouteError } from './errors.ts'

const folder = join(import.meta.dirname, '../console/dist')

/** Everything comes from this server, styles included; nothing is run from a string. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' data: blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ')

const TYPES: Record<string, string> = {
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
  svg: 'image/svg+xml',
}

/** The page's own paths. They hold nothing that a key would protect: the page asks for the key itself. */
export function isConsolePath(path: string): boolean {
  return path === '/' || path === '/icon.svg' || path.startsWith('/assets/')
}

/** GET /: the page in the browser, as it was built into console/dist, from which alone file names are taken. */
export function consoleRoutes(): Hono {
  const assets = new Set(existsSync(join(folder, 'assets')) ? readdirSync(join(folder, 'assets')) : [])
  const file = async (name: string, maxAge: string) => {
    const type = TYPES[name.split('.').at(-1) ?? ''] ?? 'application/octet-stream'
    const headers = { 'content-type': type, 'cache-control': maxAge }
    return { body: new Uint8Array(await readFile(join(folder, name))), headers }
  }
  return new Hono()
    .get('/', async (c) => {
      const page = await readFile(join(folder, 'index.html'), 'utf8')
      return c.html(page, 200, { 'content-security-policy': policy, 'cache-control': 'no-cache' })
    })
    .get('/icon.svg', async (c) => {
      const { body, headers } = await file('icon.svg', 'no-cache')
      return c.body(body, 200, headers)
    })
    .get('/assets/:name', async (c) => {
      const name = c.req.param('name')
      if (!assets.has(name))
        throw new RouteError('not_found', 'unknown_route', `There is no /assets/${name}.`)
      // The name holds a digest of the content, so it never changes.
      const { body, headers } = await file(join('assets', name), 'public, max-age=31536000, immutable')
      return c.body(body, 200, headers)
    })
}
