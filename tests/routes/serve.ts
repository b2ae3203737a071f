import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, vi } from 'vitest'
import { createApp } from '../../routes/app.ts'
import type { AppOptions } from '../../routes/app-options.ts'
import { createHttpServer } from '../../routes/http-server.ts'
import { type FakeServices, fakeOptions } from './fake-services.ts'

const open: Server[] = []

afterEach(() => {
  for (const server of open.splice(0)) {
    server.closeAllConnections()
    server.close()
  }
})

/** Serves the app on a free port of the loopback until the end of the test; returns its address. */
export async function serveApp(services: FakeServices, options: Partial<AppOptions> = {}): Promise<string> {
  const app = createApp(services.asServices(), fakeOptions(options))
  const server = createHttpServer(app, (error) => console.error(error))
  open.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Waits until the condition holds; fails when it does not within some seconds. */
export const until = (condition: () => boolean): Promise<void> =>
  vi.waitFor(() => expect(condition()).toBe(true), { timeout: 4000, interval: 5 })
