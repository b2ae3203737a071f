import { OpenAPIHono } from '@hono/zod-openapi'
import type { MiddlewareHandler } from 'hono'
import { requestId } from 'hono/request-id'
import { routePath } from 'hono/route'
import type { AppOptions } from './app-options.ts'
import { chatRoutes } from './chat.ts'
import { completionRoutes } from './completions.ts'
import { consoleRoutes } from './console.ts'
import { datasetRoutes, datasetsPath } from './datasets.ts'
import { docsRoutes } from './docs.ts'
import { embeddingRoutes } from './embeddings.ts'
import { answerError, defaultHook, isClientGone, toHttpError } from './errors.ts'
import { evaluationRoutes } from './evaluations.ts'
import { exportRoutes } from './exports.ts'
import { fineTuningRoutes } from './fine-tuning.ts'
import { hubRoutes } from './hub.ts'
import { importRoutes } from './imports.ts'
import { checkJson } from './json-body.ts'
import { loraAdapterRoutes } from './lora-adapters.ts'
import { mergeRoutes } from './merges.ts'
import { answerUnrouted } from './methods.ts'
import { modelRoutes } from './models.ts'
import { ollamaRoutes } from './ollama.ts'
import { fileRoutes, filesPath } from './openai-files.ts'
import { describeApi } from './openapi.ts'
import { authorize } from './scopes.ts'
import { allowOrigins, authenticate, checkHost, checkOrigin, limitBody, protectBrowsers } from './security.ts'
import type { Services } from './services.ts'
import type { StreamSettings } from './sse.ts'
import { systemRoutes } from './system.ts'
import { textRoutes } from './text.ts'
import { trainingRoutes } from './training.ts'

/** Tells the application of each answer, with the cause where the error was nobody's intention. */
function report(onResponse: AppOptions['onResponse']): MiddlewareHandler {
  return async (c, next) => {
    const start = performance.now()
    await next()
    onResponse({
      requestId: c.get('requestId'),
      method: c.req.method,
      route: routePath(c, -1),
      path: c.req.path,
      status: c.res.status,
      durationMs: performance.now() - start,
      ...(c.error && !toHttpError(c.error).expected && !isClientGone(c.error, c) ? { cause: c.error } : {}),
    })
  }
}

/**
 * The HTTP application: everything it knows comes from `services`, everything it decides by itself from `options`.
 * Order matters: identify and report, refuse strangers, authenticate, authorize, cap the body, then the resources.
 */
export function createApp(services: Services, options: AppOptions): OpenAPIHono {
  const streams: StreamSettings = {
    keepAliveMs: options.keepAliveMs,
    onError: (c, cause) => options.onStreamError?.({ requestId: c.get('requestId'), cause }),
  }
  const app = new OpenAPIHono({ defaultHook })
  app.onError(answerError)
  app.notFound((c) => answerUnrouted(app, c))

  app.use(requestId())
  app.use(report(options.onResponse))
  app.use(protectBrowsers)
  app.use(checkHost(options.allowedHosts))
  app.use(checkOrigin(options.allowedOrigins))
  app.use(allowOrigins(options.allowedOrigins))
  app.use(authenticate(services.auth))
  app.use(authorize)
  app.use(limitBody(options.maxJsonBytes, [datasetsPath, filesPath]))
  app.use(checkJson(options.jsonLimits))

  app.route('/', chatRoutes(services.chat, streams))
  app.route('/', completionRoutes(services.completions, streams))
  app.route('/', embeddingRoutes(services.embeddings))
  app.route('/', textRoutes(services.text))
  app.route('/', modelRoutes(services.models))
  app.route('/', loraAdapterRoutes(services.models))
  app.route('/', trainingRoutes(services.training, streams))
  app.route('/', datasetRoutes(services.datasets, options.maxUploadBytes))
  app.route('/', mergeRoutes(services.merges, streams))
  app.route('/', exportRoutes(services.exports, streams))
  app.route('/', fileRoutes(services.files, options.maxUploadBytes))
  app.route('/', fineTuningRoutes(services.fineTuning))
  app.route('/', evaluationRoutes(services.evaluations, streams))
  app.route('/', importRoutes(services.imports, streams))
  app.route('/', hubRoutes(services.hub))
  app.route('/', ollamaRoutes(services.ollama))
  app.route('/', systemRoutes(services.system))

  let document: object | undefined
  app.get('/openapi.json', (c) => {
    document ??= describeApi(app, {
      version: options.version,
      keysRequired: services.auth.required,
      trainConfig: options.schemas.trainConfig,
    })
    return c.json(document)
  })
  app.route('/', docsRoutes())
  app.route('/', consoleRoutes())
  return app
}
