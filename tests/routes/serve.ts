import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { getRequestListener } from '@hono/node-server'
import { afterEach } from 'vitest'
import { createApp } from '../../routes/app.ts'
import { answerUnreadableRequest } from '../../routes/errors.ts'
import type { AppOptions } from '../../routes/services.ts'
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
  const server = createServer(getRequestListener(app.fetch, { errorHandler: answerUnreadableRequest }))
  open.push(server)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Waits until the condition holds; the test's own time limit ends a wait in vain. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve))
}
