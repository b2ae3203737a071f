import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Logger, pino } from 'pino'
import { EngineError } from '../engine/errors.ts'
import { trainConfigSchema } from '../engine/train/config.ts'
import { createApp } from '../routes/app.ts'
import type { ResponseEntry } from '../routes/app-options.ts'
import { createHttpServer } from '../routes/http-server.ts'
import { type Application, openApplication } from './application.ts'
import { lockServer } from './db/lock.ts'
import { onInterrupt } from './interrupts.ts'
import { recoverJobs } from './jobs/recover.ts'
import { isTerminal } from './jobs/types.ts'
import { sweepTemporaries } from './models/sweep.ts'
import { sweepWorkFolders } from './models/work-folder.ts'
import { chooseDevices } from './places.ts'
import type { Settings } from './settings.ts'

export interface RunningServer {
  /** Where it listens, such as http://127.0.0.1:8000. */
  url: string
  application: Application
  /** Stops accepting, puts running jobs back into the queue with a checkpoint, lets answers finish, and closes. */
  close(): Promise<void>
}

/** Connections that may wait to be accepted: a crowd is to get its 503s, and no resets. */
const BACKLOG = 4096

/** Pause between comments that keep an event stream alive. */
const KEEP_ALIVE_MS = 15_000

/** How soon a server that drains looks again. */
const POLL_MS = 50

/** How long an ended stream may take to reach its reader. */
const LINGER_MS = 1000

/**
 * Starts the server: takes the lock on the saves directory, clears what a killed predecessor left, gives its jobs back
 * to the queue, and listens.
 *
 * @throws EngineError `conflict` when another server works on the same data or the port is taken.
 */
export async function startServer(
  settings: Settings,
  options: { logger?: Logger } = {},
): Promise<RunningServer> {
  const logger = options.logger ?? pino({ level: settings.logLevel })
  const lock = lockServer(settings.directories.saves)
  let application: Application | undefined
  try {
    application = openApplication(settings, { logger })
    const { devices } = application
    const isNamed = asksForDevice(settings)
    if (isNamed) await chooseDevices(devices, settings, logger)
    await takeOver(application)
    const server = createServer(application)
    const url = await listen(server, settings)
    application.supervisor.start()
    if (!isNamed) {
      chooseDevices(devices, settings, logger).catch((error) => logger.error({ err: error }, 'no device'))
    }
    void preload(application)
    logger.info({ url, saves: settings.directories.saves }, 'listening')
    const opened = application
    return { url, application, close: once(() => closeServer(opened, server).finally(() => lock.release())) }
  } catch (error) {
    await application?.close()
    lock.release()
    throw error
  }
}

/** `anneal serve`: runs until SIGTERM or SIGINT, then drains; a second signal ends it at once. */
export async function serve(settings: Settings): Promise<void> {
  const server = await startServer(settings)
  const { logger } = server.application
  const first = new Promise<NodeJS.Signals>((resolve) => {
    onInterrupt((count, signal) => (count > 1 ? process.exit(1) : resolve(signal)))
  })
  logger.info({ signal: await first }, 'draining')
  await server.close()
  logger.info('stopped')
}

/** A device that is named must be there before anything begins; 'auto' is found out meanwhile. */
function asksForDevice({ device, chat }: Settings): boolean {
  return [device, chat.device, ...Object.values(chat.modelDevices)].some((name) => name && name !== 'auto')
}

/** Puts the jobs of a server that died back into the queue, and removes what it left unfinished on disk. */
async function takeOver({ settings, queue, logger }: Application): Promise<void> {
  const recovered = await recoverJobs(queue)
  for (const { id, status } of recovered)
    logger.warn({ job: id, status }, 'taken over from a process that died')
  const runs = await queue.list({ kind: 'train' })
  const exports = (await queue.list({ kind: 'export' })).filter(({ status }) => !isTerminal(status))
  const active = new Set(exports.map(({ id }) => id))
  await sweepWorkFolders(join(settings.directories.saves, 'exports'), active)
  await sweepTemporaries(
    settings.directories,
    runs.map((run) => run.outputDir),
  )
}

/** The HTTP server over the services; each answer goes to the metrics and the log. */
function createServer({ services, settings, version, metrics, logger }: Application): Server {
  const app = createApp(services, {
    version,
    allowedHosts: [settings.server.host, ...settings.server.allowedHosts],
    allowedOrigins: settings.server.allowedOrigins,
    maxJsonBytes: settings.limits.bodyBytes,
    maxUploadBytes: settings.limits.uploadBytes,
    keepAliveMs: KEEP_ALIVE_MS,
    onResponse(entry) {
      const { method, route, status, durationMs } = entry
      metrics.httpRequests.inc({ method, route, status })
      metrics.httpDuration.observe({ method, route }, durationMs / 1000)
      logResponse(logger, entry)
    },
    onStreamError: ({ requestId, cause }) => logger.error({ requestId, err: cause }, 'stream failed'),
    schemas: { trainConfig: trainConfigSchema },
  })
  return createHttpServer(app, (error) => logger.error({ err: error }, 'download broken off'))
}

function logResponse(logger: Logger, { cause, ...entry }: ResponseEntry): void {
  if (cause !== undefined) logger.error({ ...entry, err: cause }, 'request failed')
  else if (entry.route === '/health' || entry.route === '/metrics') logger.debug(entry, 'answered')
  else logger.info(entry, 'answered')
}

/** Listens and returns the address. @throws EngineError `conflict` when that cannot be had. */
function listen(server: Server, { server: { host, port } }: Settings): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE'
      const reason = taken
        ? 'is taken by another program. Set another (server.port, ANNEAL_PORT)'
        : error.message
      const message = `Cannot listen on ${host}: port ${port} ${reason}.`
      reject(new EngineError('conflict', taken ? 'port_in_use' : 'cannot_listen', message, { cause: error }))
    })
    server.listen({ port, host, backlog: BACKLOG }, () => {
      const address = server.address() as AddressInfo
      resolve(`http://${host.includes(':') ? `[${host}]` : host}:${address.port}`)
    })
  })
}

/** Loads the models that the config names; the server counts as starting until they are there. */
async function preload({ settings, models, hosts, logger, state }: Application): Promise<void> {
  for (const id of settings.chat.preload) {
    let baseFolder: string | undefined
    try {
      baseFolder = (await models.resolve(id)).baseFolder
      await hosts.call(baseFolder, { kind: 'detokenize', tokens: [] })
      logger.info({ model: id }, 'preloaded')
    } catch (error) {
      logger.error({ model: id, err: error }, 'cannot be preloaded')
      const code = error instanceof EngineError ? error.code : 'internal_error'
      state.failedPreloads.push({ id, code, baseFolder })
    }
  }
  if (state.status === 'starting') state.status = 'ok'
}

/** Drains: jobs and answers come to rest, then readers are let go, then the engine ends and the database closes. */
async function closeServer(application: Application, server: Server): Promise<void> {
  const { settings, supervisor, state, logger } = application
  state.status = 'draining'
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  server.closeIdleConnections()
  await supervisor.drain()
  await untilIdle(application, settings.server.drainSeconds * 1000)
  // The last events are written; streams of jobs that wait for the next start would stay open for ever.
  await sleep(POLL_MS)
  application.endStreams()
  await Promise.race([closed, sleep(LINGER_MS, undefined, { ref: false })])
  server.closeAllConnections()
  await closed
  await application.close().catch((error) => logger.error({ err: error }, 'not closed cleanly'))
}

/** Answers in progress may finish. */
async function untilIdle({ hosts }: Application, timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs
  while (hosts.loaded().some((engine) => engine.activeRequests > 0) && Date.now() < deadline) {
    await sleep(POLL_MS)
  }
}

/** Does the work at the first call; later ones wait for the same. */
function once(work: () => Promise<void>): () => Promise<void> {
  let running: Promise<void> | undefined
  return () => {
    running ??= work()
    return running
  }
}
