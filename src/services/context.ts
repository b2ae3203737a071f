import type { Logger } from 'pino'
import type { DatasetRegistry } from '../datasets/registry.ts'
import type { Devices } from '../device/devices.ts'
import type { EngineHosts } from '../engine-host/client.ts'
import type { FileStore } from '../files/store.ts'
import type { JobQueue } from '../jobs/queue.ts'
import type { FolderLeases } from '../models/leases.ts'
import type { ModelRegistry } from '../models/registry.ts'
import type { Settings } from '../settings.ts'
import type { Metrics } from './metrics.ts'

/** What the services work with; made once by openApplication. */
export interface ServiceContext {
  settings: Settings
  queue: JobQueue
  models: ModelRegistry
  datasets: DatasetRegistry
  files: FileStore
  hosts: EngineHosts
  devices: Devices
  metrics: Metrics
  /** Who downloads what this server has made. */
  leases: FolderLeases
  logger: Logger
  /** Aborts when the server has drained: event streams end, and their readers may come back to the next start. */
  closing: AbortSignal
  /** Of this package. */
  version: string
}
