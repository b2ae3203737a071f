import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ggufFileName, writeGguf } from '../../engine/export/gguf.ts'
import { openModel } from '../../engine/models/index.ts'

const JUDGES = fileURLToPath(new URL('.', import.meta.url))
const PYTHON = process.env.JUDGE_PYTHON
const installed = existsSync(join(JUDGES, 'node_modules/node-llama-cpp'))
const ready = installed && PYTHON !== undefined
const NEEDS = ready
  ? ''
  : ' (skipped: npm --prefix tests/judges install --ignore-scripts, and JUDGE_PYTHON with transformers)'

/** What make-families.py makes. */
const CASES = [
  'gemma',
  'gemma2',
  'gemma3',
  'gemma3-other-pattern',
  'glm',
  'glm4',
  'llama',
  'llama-biases',
  'llama-yarn',
  'llama3',
  'mistral',
  'mistral-nemo',
  'mixtral',
  'olmo2',
  'olmo2-tied',
  'phi3',
  'phi3-longrope',
  'phi3-partial-rotary',
  'qwen2',
  'qwen3',
  'qwen3-moe',
  'qwen3-yarn-attention',
]

interface Reference {
  ids: number[]
  withSpecial: number[]
  logProbabilities: number[][]
}

interface Answer {
  ids: number[]
  logProbabilities: number[][]
  margins: number[]
}

/** In nats. Their cache is float16, their gelu a table of float16, and products with float16 round what goes in. */
const TOLERANCE = 0.02

const folder = ready ? mkdtempSync(join(tmpdir(), 'anneal-families-')) : ''

beforeAll(() => {
  if (!ready) return
  const { status, stderr } = spawnSync(
    PYTHON!,
    [join(JUDGES, 'make-families.py'), join(folder, 'models'), '7'],
    {
      encoding: 'utf8',
    },
  )
  if (status !== 0) throw new Error(stderr)
}, 240_000)
afterAll(() => {
  if (folder) rmSync(folder, { recursive: true, force: true })
})

async function exportAndAsk(name: string, type: 'F32' | 'F16'): Promise<{ bos: boolean; texts: Answer[] }> {
  const out = join(folder, `${name}-${type}`)
  mkdirSync(out)
  const model = openModel(join(folder, 'models', name))
  await writeGguf(out, { model, type })
  model.weights.close()
  const answer = join(out, 'answer.json')
  const reference = join(model.folder, 'reference.json')
  const given = [join(JUDGES, 'llama-cpp-logits.mjs'), join(out, ggufFileName(type)), reference, answer]
  const { status, stderr } = spawnSync('node', given, { encoding: 'utf8' })
  if (status !== 0) throw new Error(stderr)
  return JSON.parse(readFileSync(answer, 'utf8'))
}

describe.skipIf(!ready)(`llama.cpp beside transformers${NEEDS}`, () => {
  it('is asked about every family that the script makes', () => {
    expect(readdirSync(join(folder, 'models')).sort()).toEqual(CASES)
  })

  it.each(CASES)(
    'reads the tokens, the probabilities and the greedy answers of %s',
    { timeout: 120_000 },
    async (name) => {
      const { texts } = JSON.parse(readFileSync(join(folder, 'models', name, 'reference.json'), 'utf8'))
      for (const type of ['F32', 'F16'] as const) {
        const answer = await exportAndAsk(name, type)
        expect(answer.bos).toBe(texts[0].withSpecial.length > texts[0].ids.length)
        for (const [index, expected] of (texts as Reference[]).entries()) {
          const { ids, margins, logProbabilities } = answer.texts[index]!
          expect(ids).toEqual(expected.ids)
          expect(Math.max(...margins)).toBeLessThan(TOLERANCE)
          const differences = expected.logProbabilities.map((row, position) =>
            row.map((value, token) => Math.abs(value - logProbabilities[position]![token]!)),
          )
          expect(Math.max(...differences.flat()), type).toBeLessThan(TOLERANCE)
        }
      }
    },
  )
})
