import { setMaxListeners } from 'node:events'
import { mkdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { type Logger, pino } from 'pino'
import { z } from 'zod'
import { DatasetRegistry } from './datasets/registry.ts'
import { openDatabase } from './db/client.ts'
import { SqliteJobQueue } from './db/job-queue.ts'
import { JobQueries } from './db/queries.ts'
import { Devices } from './device/devices.ts'
import { EngineHosts } from './engine-host/client.ts'
import { FileStore } from './files/store.ts'
import { logFileOf } from './jobs/log-file.ts'
import { identityOf } from './jobs/process-identity.ts'
import { JobSupervisor } from './jobs/supervisor.ts'
import type { ProcessIdentity } from './jobs/types.ts'
import { FolderLeases } from './models/leases.ts'
import { ModelRegistry } from './models/registry.ts'
import { jobPlaces, servedPlaces } from './places.ts'
import type { ServiceContext } from './services/context.ts'
import { Metrics } from './services/metrics.ts'
import type { ServerState } from './services/system.ts'
import { type AppServices, createServices } from './services.ts'
import { packageRoot, type Settings } from './settings.ts'

/** Everything that a server or a command works with. */
export interface Application extends ServiceContext {
  services: AppServices
  supervisor: JobSupervisor
  /** This process, as the owner of the jobs that it runs. */
  self: ProcessIdentity
  /** What /health says. */
  state: ServerState
  /** Ends all event streams. */
  endStreams(): void
  /** Ends the engine's processes and closes the database. Drain the supervisor before. */
  close(): Promise<void>
}

/**
 * Opens the database and composes the services. Starts no job, listens nowhere and takes no lock: the command line uses
 * it beside a running server.
 */
export function openApplication(
  settings: Settings,
  options: { logger?: Logger; supervisor?: { entry: URL } } = {},
): Application {
  const { logger = pino({ level: 'silent' }) } = options
  const { directories, concurrency } = settings
  mkdirSync(directories.saves, { recursive: true })
  const database = openDatabase(settings.database)
  const queue = new SqliteJobQueue(new JobQueries(database.db), settings.database)
  const self = identityOf(process.pid)
  if (!self) throw new Error('The system does not tell when this process started.')
  const devices = new Devices()
  const hosts = openHosts(settings, devices, logger)
  const closing = new AbortController()
  setMaxListeners(0, closing.signal)
  const context: ServiceContext = {
    settings,
    queue,
    models: new ModelRegistry(directories.models, queue),
    datasets: new DatasetRegistry({ directories: [directories.datasets] }),
    files: new FileStore(directories.saves),
    hosts,
    devices,
    metrics: new Metrics(queue, hosts),
    leases: new FolderLeases(),
    logger,
    closing: closing.signal,
    version: readVersion(),
  }
  const supervisor = new JobSupervisor({
    queue,
    owner: self,
    concurrency,
    entry: new URL('./tasks/worker.ts', import.meta.url),
    places: jobPlaces(devices),
    cancelGraceMs: settings.jobs.cancelGraceSeconds * 1000,
    logFile: (job) => logFileOf(job, directories.saves),
    onError: (error) => logger.error({ err: error }, 'jobs cannot be recorded'),
    onSettled: ({ id, status, error }) => logger.info({ job: id, status, code: error?.code }, 'job settled'),
    ...options.supervisor,
  })
  const state: ServerState = { status: 'starting', failedPreloads: [] }
  return {
    ...context,
    services: createServices(context, state),
    supervisor,
    self,
    state,
    endStreams: () => closing.abort(),
    async close() {
      devices.close()
      await hosts.close()
      database.close()
    },
  }
}

/** The processes that answer chats, under the settings' limits. */
function openHosts(settings: Settings, devices: Devices, logger: Logger): EngineHosts {
  const { directories, limits, chat } = settings
  return new EngineHosts({
    threads: chat.threads,
    maxLoaded: chat.loadedModels,
    maxPositions: limits.contextTokens,
    maxQueue: limits.queuedChats,
    maxRunning: chat.concurrent,
    prefixBytes: chat.prefixBytes,
    promptLookup: chat.promptLookup,
    maxAdapters: chat.loadedAdapters,
    idleMinutes: chat.keepAliveMinutes === 'forever' ? Infinity : chat.keepAliveMinutes,
    adapters: chat.adapters === 'ready' ? 'plain' : 'none',
    weights: chat.weights,
    weightsOf: (folder) => chat.modelWeights[basename(folder)],
    packedFolder: join(directories.saves, '.packed'),
    placeOf: servedPlaces(devices, settings),
    onReleased: (placement) => devices.release(placement),
    onCrash: (placement) => {
      if (placement.device.kind !== 'cpu') void devices.retest(placement)
    },
    logger,
  })
}

function readVersion(): string {
  const manifest: unknown = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'))
  return z.object({ version: z.string() }).parse(manifest).version
}
