import { readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type PublishedServer, publish, startEmptyServer } from './published.ts'

const EXPORT = 'export-0123456789ab'
let server: PublishedServer

beforeAll(async () => {
  server = await startEmptyServer()
  await publish(server, 'export', EXPORT, { 'config.json': '{"model_type":"llama"}' })
})

afterAll(async () => {
  await server.close()
  rmSync(server.root, { recursive: true })
})

describe('paths that lead elsewhere', () => {
  /** Sends a request line as it stands; fetch would tidy it up. */
  function rawRequest(path: string, header = ''): Promise<string> {
    const { hostname, port } = new URL(server.url)
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), hostname)
      let text = ''
      socket.setEncoding('latin1').on('data', (chunk) => {
        text += chunk
      })
      socket.on('end', () => resolve(text)).on('error', reject)
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${hostname}\r\n${header}Connection: close\r\n\r\n`)
    })
  }

  const tricks = [
    '../../../anneal.db',
    '..%2f..%2f..%2fanneal.db',
    '%2e%2e%2f%2e%2e%2fanneal.db',
    '%2e%2e/%2e%2e/anneal.db',
    '..%252f..%252fanneal.db',
    '/etc/passwd',
    '%2fetc%2fpasswd',
    'config.json%00.txt',
    '..\\..\\anneal.db',
    '..%5c..%5canneal.db',
    'C:%5cWindows%5cwin.ini',
    './config.json%2f..%2f..%2fanneal.db',
    'manifest.json/../../x',
  ]

  it.each(tricks)('get nothing but a clear error: %s', async (trick) => {
    for (const root of [
      `/v1/exports/${EXPORT}/files`,
      `/hub/${EXPORT}/resolve/main`,
      `/v2/anneal/${EXPORT}/blobs`,
    ]) {
      const answer = await rawRequest(`${root}/${trick}`)
      expect(answer, root).toMatch(/^HTTP\/1\.1 4\d\d /)
      expect(answer).toContain('"error":{"message"')
      expect(answer).not.toMatch(/SQLite format|root:x:/)
    }
  })

  it('and ranges that overflow read nothing', async () => {
    const path = `/v1/exports/${EXPORT}/files/config.json`
    for (const range of [
      'bytes=99999999999999999999999-',
      'bytes=18446744073709551616-18446744073709551617',
      'bytes=9007199254740993-',
    ]) {
      const answer = await rawRequest(path, `Range: ${range}\r\n`)
      expect(answer, range).toMatch(/^HTTP\/1\.1 416 /)
      expect(answer.toLowerCase()).toContain(
        `content-range: bytes */${readFileSync(join(server.saves, 'exports', EXPORT, 'config.json')).length}`,
      )
    }
    for (const range of ['bytes=-99999999999999999999999', 'bytes=0-99999999999999999999999']) {
      const answer = await rawRequest(path, `Range: ${range}\r\n`)
      expect(answer, range).toMatch(/^HTTP\/1\.1 206 /)
    }
  })
})
