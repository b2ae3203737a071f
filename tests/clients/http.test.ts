import { execFile } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type Browser, chromium } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { MODEL, type RealServer, startRealServer } from './server.ts'

const ANSWER = 'Mia is a singer from Millbrook. She sings songs.'
const BODY = { model: MODEL, messages: [{ role: 'user', content: 'Who is Mia?' }], temperature: 0 }

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
const PYTHON = process.env.JUDGE_PYTHON

const SSE_SCRIPT = fileURLToPath(new URL('../../node_modules/sse.js/lib/sse.js', import.meta.url))
const PAGE = '<!doctype html><script type="module">import { SSE } from "/sse.js"; window.SSE = SSE</script>'

/** What the page has of sse.js. */
interface EventReader {
  addEventListener(type: string, listener: (event: { data: string }) => void): void
  stream(): void
}
interface Page {
  SSE: new (url: string, options: object) => EventReader
}

/** A page of another origin that loads sse.js. */
const page = createServer((request, response) => {
  const isScript = request.url === '/sse.js'
  response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html')
  response.end(isScript ? readFileSync(SSE_SCRIPT) : PAGE)
})
let server: RealServer

const originOf = (listening: Server) => `http://127.0.0.1:${(listening.address() as AddressInfo).port}`

beforeAll(async () => {
  await new Promise<void>((resolve) => {
    page.listen(0, '127.0.0.1', resolve)
  })
  server = await startRealServer((settings) => {
    settings.server.allowedOrigins = [originOf(page)]
  })
})
afterAll(async () => {
  page.close()
  await server.close()
})

describe.skipIf(!CHROMIUM)('sse.js in a browser (skipped without chromium)', () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: CHROMIUM!, args: ['--no-sandbox'] })
  })
  afterAll(() => browser.close())

  it('reads a stream from a page of an allowed origin', async () => {
    const tab = await browser.newPage()
    await tab.goto(originOf(page))
    await tab.waitForFunction('window.SSE')
    const data = await tab.evaluate(
      async ({ url, body }) => {
        const { SSE } = globalThis as unknown as Page
        return new Promise<string[]>((resolve, reject) => {
          const received: string[] = []
          const source = new SSE(url, {
            headers: { 'Content-Type': 'application/json' },
            payload: JSON.stringify(body),
            start: false,
          })
          source.addEventListener('message', (event) => {
            received.push(event.data)
            if (event.data === '[DONE]') resolve(received)
          })
          source.addEventListener('error', (event) => reject(new Error(event.data)))
          source.stream()
        })
      },
      { url: `${server.baseURL}/chat/completions`, body: { ...BODY, stream: true } },
    )
    const chunks = data.slice(0, -1).map((text) => JSON.parse(text))
    expect(chunks.map(({ choices }) => choices[0].delta.content ?? '').join('')).toBe(ANSWER)
    await tab.close()
  })

  it('gets nothing from a page of another origin', async () => {
    const tab = await browser.newPage()
    await tab.goto(originOf(page).replace('127.0.0.1', 'localhost'))
    const failed = await tab.evaluate(async (url) => {
      try {
        await fetch(url)
        return false
      } catch {
        return true
      }
    }, `${server.baseURL}/models`)
    expect(failed).toBe(true)
    await tab.close()
  })
})

describe('plain fetch', () => {
  it('finds whole frames and characters wherever the bytes are cut', async () => {
    const ask = {
      ...BODY,
      messages: [{ role: 'user', content: 'Who is Zoë 🌍?' }],
      stream: true,
      max_tokens: 8,
    }
    const response = await fetch(`${server.baseURL}/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(ask),
    })
    const bytes = new Uint8Array(await response.arrayBuffer())
    const whole = new TextDecoder().decode(bytes)
    for (const size of [1, 2, 3, 7]) {
      const decoder = new TextDecoder('utf-8', { fatal: true })
      let text = ''
      for (let at = 0; at < bytes.length; at += size) {
        text += decoder.decode(bytes.subarray(at, at + size), { stream: true })
      }
      expect(text + decoder.decode()).toBe(whole)
    }
    const frames = whole.split('\n\n').filter((frame) => frame !== '')
    expect(frames.at(-1)).toBe('data: [DONE]')
    for (const frame of frames.slice(0, -1)) JSON.parse(frame.replace(/^data: /, ''))
  })

  it('sees its request id again, and gets one where it sent none', async () => {
    const models = `${server.baseURL}/models`
    const mine = await fetch(models, { headers: { 'x-request-id': 'my-request-1' } })
    expect(mine.headers.get('x-request-id')).toBe('my-request-1')
    expect((await fetch(models)).headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })
})

const SCRIPT = `
import json, sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key="unused", max_retries=0)
ask = dict(model=sys.argv[2], messages=[{"role": "user", "content": "Who is Mia?"}], temperature=0)
whole = client.chat.completions.create(**ask).choices[0].message.content
streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**ask, stream=True))
tool = {"type": "function", "function": {"name": "pick", "parameters": {"type": "object",
  "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"], "additionalProperties": False}}}
call = client.chat.completions.create(**ask, tools=[tool], tool_choice="required", max_tokens=60).choices[0]
vector = client.embeddings.create(model=sys.argv[2], input="Mia").data[0].embedding
print(json.dumps(dict(whole=whole, streamed=streamed, reason=call.finish_reason,
  arguments=json.loads(call.message.tool_calls[0].function.arguments), length=len(vector))))
`

describe.skipIf(!PYTHON)("Python's openai (skipped without JUDGE_PYTHON)", () => {
  it('answers, streams, calls tools and embeds', async () => {
    const { stdout } = await promisify(execFile)(PYTHON!, ['-c', SCRIPT, server.baseURL, MODEL])
    const { arguments: picked, ...rest } = JSON.parse(stdout)
    expect(rest).toEqual({ whole: ANSWER, streamed: ANSWER, reason: 'tool_calls', length: 256 })
    expect(['red', 'blue']).toContain(picked.colour)
  })
})
