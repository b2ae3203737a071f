import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { writeAdapter } from '../../engine/adapter/peft.ts'
import { exportAdapter } from '../../engine/export/adapter.ts'
import { exportModel, type ModelExport } from '../../engine/export/export-model.ts'
import { ggufFileName, writeGguf } from '../../engine/export/gguf.ts'
import { Decoder } from '../../engine/generate/decoder.ts'
import { importGguf } from '../../engine/gguf/import.ts'
import { openModel } from '../../engine/models/index.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { ANNEAL_TINY } from '../anneal-tiny.ts'
import { randomAdapter } from '../engine/export/random-adapter.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../shared.ts'

const JUDGES = fileURLToPath(new URL('.', import.meta.url))
const installed = existsSync(join(JUDGES, 'node_modules/node-llama-cpp'))
const NEEDS = installed ? '' : ' (skipped: npm --prefix tests/judges install --ignore-scripts)'

const TEXTS = ['Captain is a grey', 'The Lighthouse library stands on', 'Marina opens the door at']
const COUNT = 12

let folder = ''
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'anneal-judges-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Answer {
  prompt: number[]
  ids: number[]
}

function judge(script: string, model: string, texts: readonly string[], ...more: string[]): Answer[] {
  const given = [join(JUDGES, script), model, JSON.stringify(texts), String(COUNT), ...more]
  const { stdout, stderr, status } = spawnSync('node', given, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${script}: ${stderr}`)
  return JSON.parse(stdout.trim().split('\n').at(-1)!) as Answer[]
}

async function exported(name: string, changes: Partial<ModelExport>): Promise<string> {
  const outputFolder = join(folder, name)
  await exportModel({
    model: 'anneal-tiny',
    modelFolder: ANNEAL_TINY,
    outputFolder,
    workFolder: join(folder, `.${name}`),
    format: 'gguf',
    bits: 16,
    dtype: 'float32',
    shardBytes: 5e9,
    ggufType: undefined,
    method: undefined,
    groupSize: 32,
    symmetric: true,
    actOrder: false,
    damping: 0.05,
    seed: 42,
    calibration: undefined,
    text: undefined,
    maxKld: undefined,
    ...changes,
  })
  return outputFolder
}

/** What this engine answers greedily to each text, with the prompts' ids. */
async function ours(
  texts: readonly string[],
  adapterFolder?: string,
  model = ANNEAL_TINY,
): Promise<Answer[]> {
  const tokenizer = loadTokenizer(model)
  const decoder = await Decoder.load(model, { threads: 1 })
  try {
    const adapter = adapterFolder === undefined ? undefined : await decoder.loadAdapter(adapterFolder)
    const answers: Answer[] = []
    for (const text of texts) {
      const prompt = tokenizer.encode(text)
      const cache = decoder.createCache()
      const ids: number[] = []
      for (let next = prompt; ids.length < COUNT; next = Int32Array.of(ids.at(-1)!)) {
        const logits = await decoder.forward(next, cache, adapter)
        ids.push(logits.indexOf(logits.reduce((a, b) => Math.max(a, b))))
      }
      answers.push({ prompt: [...prompt], ids })
    }
    return answers
  } finally {
    await decoder.release()
  }
}

/** The other program stops at an end token; up to there it must answer as we do. */
function expectAlike(theirs: readonly Answer[], expected: readonly Answer[]): void {
  for (const [index, { prompt, ids }] of theirs.entries()) {
    expect(prompt).toEqual(expected[index]!.prompt)
    expect(ids.length).toBeGreaterThan(0)
    expect(ids).toEqual(expected[index]!.ids.slice(0, ids.length))
  }
}

/** How far each token of an answer is from the one that we find most likely there, in nats. */
async function shortfalls({ prompt, ids }: Answer, model: string): Promise<number[]> {
  const decoder = await Decoder.load(model, { threads: 1 })
  try {
    const cache = decoder.createCache()
    const behind: number[] = []
    let next = Int32Array.from(prompt)
    for (const id of ids) {
      const logits = await decoder.forward(next, cache)
      behind.push(logits.reduce((a, b) => Math.max(a, b)) - logits[id]!)
      next = Int32Array.of(id)
    }
    return behind
  } finally {
    await decoder.release()
  }
}

/** llama.cpp rounds what meets quantized weights to 8 bits, which may turn tokens that are about as likely, in nats. */
const NEAR = 0.1

const options = { timeout: 240_000 }

describe.skipIf(!installed)(`llama.cpp${NEEDS}`, () => {
  it('reads our F16 file, tokenizes alike and answers alike', options, async () => {
    const file = join(await exported('f16', { ggufType: 'F16', dtype: 'float16' }), 'model-F16.gguf')
    expectAlike(judge('llama-cpp.mjs', file, TEXTS), await ours(TEXTS))
  })

  it.each(['Q4_0', 'Q4_1', 'Q4_K_M', 'Q8_0'] as const)(
    'reads %s as GPTQ rounded it and answers alike, but for tokens about as likely',
    options,
    async (ggufType) => {
      const ids = loadTokenizer(ANNEAL_TINY).encode(TEXTS.join(' '))
      const text = { dataset: 'texts', windows: [ids.slice(0, 16)] }
      const bits = ggufType === 'Q8_0' ? 8 : 4
      const changes = { ggufType, bits, method: 'gptq', calibration: text, text } as const
      const file = join(await exported(ggufType, changes), ggufFileName(ggufType))
      const outputFolder = join(folder, `${ggufType}-back`)
      await importGguf({ file, outputFolder, dtype: 'float32' })
      for (const answer of judge('llama-cpp.mjs', file, TEXTS)) {
        expect(answer.ids.length).toBeGreaterThan(0)
        const behind = await shortfalls(answer, outputFolder)
        expect(Math.max(...behind)).toBeLessThan(NEAR)
      }
    },
  )

  it('adds our adapter file to the base as we do', options, async () => {
    const file = join(await exported('base', { ggufType: 'F32' }), 'model-F32.gguf')
    const adapterFolder = join(folder, 'peft')
    writeAdapter(adapterFolder, randomAdapter(ANNEAL_TINY, 4))
    const outputFolder = join(folder, 'lora')
    const folders = { modelFolder: ANNEAL_TINY, adapterFolder, outputFolder }
    await exportAdapter({ ...folders, format: 'adapter-gguf', dtype: 'float32' })
    const expected = await ours(TEXTS, adapterFolder)
    expectAlike(judge('llama-cpp.mjs', file, TEXTS, join(outputFolder, 'adapter.gguf')), expected)
    expect(expected).not.toEqual(await ours(TEXTS))
  })
})

describe.skipIf(!installed || sharedMissing('models'))(
  `llama.cpp with SmolLM2${NEEDS} ${NEEDS_SHARED}`,
  () => {
    it('still knows the capital of France from each of our quantized files', options, async () => {
      const modelFolder = join(folder, 'smollm2')
      execFileSync('node', [join(SHARED, 'models/unpack.mjs'), modelFolder])
      const model = openModel(modelFolder)
      for (const type of ['Q8_0', 'Q4_K_M', 'Q4_1', 'Q4_0'] as const) {
        await writeGguf(folder, { model, type })
        const [answer] = judge('llama-cpp.mjs', join(folder, ggufFileName(type)), [
          'The capital of France is',
        ])
        expect(loadTokenizer(modelFolder).decode(Int32Array.from(answer!.ids)), type).toMatch(/Paris|Seine/)
      }
      model.weights.close()
    })
  },
)

describe.skipIf(!installed)(`transformers.js${NEEDS}`, () => {
  it('runs our fp32 decoder with its cache and answers alike', options, async () => {
    const output = await exported('onnx-fp32', { format: 'onnx' })
    expectAlike(judge('transformers-js.mjs', output, TEXTS, 'fp32'), await ours(TEXTS))
  })

  it('runs our 4-bit decoder', options, async () => {
    const windows = [loadTokenizer(ANNEAL_TINY).encode(TEXTS.join(' '))]
    const quantized = { format: 'onnx', bits: 4, dtype: 'float16', method: 'rtn' } as const
    const output = await exported('onnx-q4', { ...quantized, text: { dataset: 'texts', windows } })
    const texts = TEXTS.slice(0, 1)
    expectAlike(judge('transformers-js.mjs', output, texts, 'q4'), await ours(texts))
  })
})
