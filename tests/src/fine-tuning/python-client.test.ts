import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { startServer } from '../../../src/main.ts'
import { loadSettings } from '../../../src/settings.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'

const python = process.env.JUDGE_PYTHON
const needs = python ? '' : ' (skipped: JUDGE_PYTHON names no Python with openai)'

describe("Python's openai client", () => {
  it.skipIf(!python)(
    `uploads, fine-tunes, reads events and checkpoints, and chats${needs}`,
    async () => {
      const root = mkdtempSync(join(tmpdir(), 'anneal-python-'))
      mkdirSync(join(root, 'models'))
      cpSync(ANNEAL_TINY, join(root, 'models/anneal-tiny'), { recursive: true })
      writeFileSync(join(root, 'dataset_info.json'), '{}')
      const messages = [
        { role: 'user', content: 'Hello!' },
        { role: 'assistant', content: 'Good day.' },
      ]
      const chats = join(root, 'chats.jsonl')
      writeFileSync(chats, `${JSON.stringify({ messages })}\n`.repeat(4))
      const env = {
        ANNEAL_MODELS_DIR: join(root, 'models'),
        ANNEAL_DATA_DIR: root,
        ANNEAL_SAVES_DIR: join(root, 'saves'),
        ANNEAL_PORT: '0',
      }
      const server = await startServer(await loadSettings({ env, cwd: root }), {
        logger: pino({ level: 'silent' }),
      })
      try {
        const script = join(import.meta.dirname, 'python-client.py')
        const { stdout } = await promisify(execFile)(python!, [script, `${server.url}/v1`, chats])
        expect(JSON.parse(stdout.trim().split('\n').at(-1)!)).toMatchObject({
          status: 'succeeded',
          model: expect.stringMatching(/^ft:anneal-tiny:anneal:python:[0-9a-f]{12}$/),
          events: expect.any(Number),
          steps: [2],
          answer: expect.any(String),
        })
      } finally {
        await server.close()
        rmSync(root, { recursive: true })
      }
    },
    120_000,
  )
})
