import { createHash, timingSafeEqual } from 'node:crypto'
import type { AuthService, Health, SystemService } from '../../routes/services.ts'
import type { ServiceContext } from './context.ts'

/** Health and metrics; `state` is the server's to change. */
export function systemService(
  { metrics, version, settings }: ServiceContext,
  state: { status: Health['status'] },
): SystemService {
  return {
    async health() {
      const device = settings.device === 'auto' ? 'cpu' : settings.device
      return { status: state.status, version, device, uptimeSeconds: Math.floor(process.uptime()) }
    },
    async metrics() {
      return { contentType: metrics.registry.contentType, body: await metrics.registry.metrics() }
    },
  }
}

/** Compares SHA-256 digests, each with every configured one, so that the time tells nothing. */
export function authService(hashes: readonly string[]): AuthService {
  const accepted = hashes.map((hash) => Buffer.from(hash, 'hex'))
  return {
    required: accepted.length > 0,
    authenticate(key) {
      const digest = createHash('sha256').update(key).digest()
      return accepted.filter((hash) => timingSafeEqual(hash, digest)).length > 0
    },
  }
}
