import { createHash, timingSafeEqual } from 'node:crypto'
import type { Scope } from '../../routes/scopes.ts'
import type { AuthService, SystemService } from '../../routes/services.ts'
import type { Settings } from '../settings.ts'
import type { ServiceContext } from './context.ts'

/** A key of which the config says nothing else. */
const EVERYTHING: readonly Scope[] = ['admin']

/** What the server knows of itself, and alone changes. */
export interface ServerState {
  status: 'starting' | 'ok' | 'draining'
  /** Models that could not be loaded at the start; `baseFolder` where the id is known. */
  failedPreloads: Array<{ id: string; code: string; baseFolder?: string }>
}

/** Health and metrics. A model that a later request has loaded after all counts as well. */
export function systemService(
  { metrics, version, settings, hosts, devices }: ServiceContext,
  state: ServerState,
): SystemService {
  const failedModels = () => {
    const ready = new Set(hosts.loaded().flatMap((each) => (each.state === 'ready' ? [each.baseFolder] : [])))
    state.failedPreloads = state.failedPreloads.filter(({ baseFolder }) => !ready.has(baseFolder ?? ''))
    return state.failedPreloads.map(({ id, code }) => ({ id, code }))
  }
  return {
    async health() {
      const failed = failedModels()
      const status = state.status === 'ok' && failed.length > 0 ? 'preload_failed' : state.status
      const { device, reason } = devices.summary(settings.device)
      const uptimeSeconds = Math.floor(process.uptime())
      return { status, failedModels: failed, version, device, deviceReason: reason, uptimeSeconds }
    },
    async metrics() {
      return { contentType: metrics.registry.contentType, body: await metrics.registry.metrics() }
    },
  }
}

/** Compares SHA-256 digests, each with every configured one, so that the time tells nothing. */
export function authService(keys: Settings['server']['apiKeys']): AuthService {
  const accepted = keys.map((key) => {
    const { sha256, scopes } = typeof key === 'string' ? { sha256: key, scopes: EVERYTHING } : key
    return { digest: Buffer.from(sha256, 'hex'), scopes }
  })
  return {
    required: accepted.length > 0,
    authenticate(key) {
      const digest = createHash('sha256').update(key).digest()
      const found = accepted.filter((each) => timingSafeEqual(each.digest, digest))
      return found.length > 0 ? [...new Set(found.flatMap(({ scopes }) => scopes))] : undefined
    },
  }
}
