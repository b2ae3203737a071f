import { readFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { Hono } from 'hono'

/*
 * The API reference page. swagger-ui-dist carries its whole page in the package, so that it works without a network; the
 * Scalar middleware loads its script from a CDN, and its package asks for a newer Node than this project does.
 */

const require = createRequire(import.meta.url)

const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Anneal API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="reference"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
`

// Without a validator url, which would send the document's address to another host.
const startScript = `SwaggerUIBundle({
  url: '/openapi.json',
  dom_id: '#reference',
  deepLinking: true,
  validatorUrl: null,
})
`

/** Scripts only from here. Styles may be inline, because the page's components set them on their elements. */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
].join('; ')

const readAsset = (name: string) => readFile(require.resolve(`swagger-ui-dist/${name}`), 'utf8')

/** GET /docs: a page that shows /openapi.json, made of files that this server has itself. */
export function docsRoutes(): Hono {
  const script = { 'content-type': 'text/javascript; charset=utf-8', 'cache-control': 'no-cache' }
  const style = { 'content-type': 'text/css; charset=utf-8', 'cache-control': 'no-cache' }
  return new Hono()
    .get('/docs', (c) => c.html(page, 200, { 'content-security-policy': policy }))
    .get('/docs/start.js', (c) => c.body(startScript, 200, script))
    .get('/docs/swagger-ui-bundle.js', async (c) =>
      c.body(await readAsset('swagger-ui-bundle.js'), 200, script),
    )
    .get('/docs/swagger-ui.css', async (c) => c.body(await readAsset('swagger-ui.css'), 200, style))
}
