import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mergeAdapter } from '../../engine/adapter/merge.ts'
import { writeAdapter } from '../../engine/adapter/peft.ts'
import { exportAdapter } from '../../engine/export/adapter.ts'
import { adoptTemplate } from '../../engine/export/carried-template.ts'
import { goTemplate } from '../../engine/export/go-template.ts'
import { readTurnForm } from '../../engine/export/turn-form.ts'
import { importGguf } from '../../engine/gguf/import.ts'
import { type ChatTemplate, resolveChatTemplate } from '../../engine/text/chat-template.ts'
import { FORMATS } from '../../engine/text/formats.ts'
import { loadTokenizer } from '../../engine/text/tokenizer.ts'
import { ServerProcess } from '../e2e/server.ts'
import { randomAdapter } from '../engine/export/random-adapter.ts'
import { CuttingProxy } from './cutting-proxy.ts'
import { type OllamaMessage, OllamaProcess } from './ollama-process.ts'

/**
 * Ollama itself beside this server. OLLAMA_BIN names its program; docs/DOWNLOADS.md says how to build one from the Go
 * module. With JUDGE_PYTHON, families of other architectures are asked as well.
 */
const PROGRAM = process.env.OLLAMA_BIN
const PYTHON = process.env.JUDGE_PYTHON
const ready = PROGRAM !== undefined && existsSync(PROGRAM)
const NEEDS = ready ? '' : ' (skipped: OLLAMA_BIN names no program)'

const JUDGES = fileURLToPath(new URL('.', import.meta.url))
const DATA = fileURLToPath(new URL('../../data', import.meta.url))
const TINY = join(DATA, 'models/anneal-tiny')

/** Which published format a random family is asked in. Ollama's glm4 takes no heads that are not square together. */
const FAMILIES: Readonly<Record<string, string>> = {
  gemma: 'gemma',
  gemma2: 'gemma2',
  gemma3: 'gemma3',
  glm: 'chatglm3',
  llama: 'llama2',
  'llama-biases': 'yi',
  llama3: 'llama3',
  mistral: 'mistral',
  'mistral-nemo': 'mistral',
  mixtral: 'mistral',
  olmo2: 'zephyr',
  phi3: 'phi',
  'phi3-partial-rotary': 'phi4',
  qwen2: 'qwen',
  qwen3: 'qwen3_nothink',
  'qwen3-moe': 'qwen',
}
const TYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K_M'] as const

const QUESTIONS: readonly OllamaMessage[][] = [
  [{ role: 'user', content: 'Who are you?' }],
  [
    { role: 'system', content: 'Answer in one sentence.' },
    { role: 'user', content: 'Where does Captain live?' },
  ],
  [
    { role: 'user', content: 'Who are you?' },
    { role: 'assistant', content: 'I am Anneal Tiny.\nA model.' },
    { role: 'user', content: 'Who opens the door of the library?' },
  ],
]
const COUNT = 24
/** In nats. Ollama's cache is float16; what meets quantized weights it rounds to 8 bits. Either may turn tokens about as likely. */
const TOLERANCE = { plain: 0.02, quantized: 0.1 } as const

let workspace = ''
let server: ServerProcess
let ollama: OllamaProcess
beforeAll(async () => {
  if (!ready) return
  workspace = mkdtempSync(join(tmpdir(), 'anneal-ollama-'))
  const models = join(workspace, 'models')
  mkdirSync(models)
  cpSync(TINY, join(models, 'tiny'), { recursive: true })
  if (PYTHON) makeFamilies(models)
  server = await startServer('server', {})
  ollama = await OllamaProcess.start(PROGRAM!, join(workspace, 'ollama'))
})
afterAll(async () => {
  await ollama?.stop()
  await server?.stop()
  if (workspace) rmSync(workspace, { recursive: true, force: true })
})

function startServer(name: string, settings: object): Promise<ServerProcess> {
  const folder = join(workspace, name)
  mkdirSync(folder, { recursive: true })
  const config = {
    directories: { models: [join(workspace, 'models')], datasets: DATA, saves: join(folder, 'saves') },
    policy: { minQuantizeParameters: 0 },
    ...settings,
  }
  writeFileSync(join(folder, 'anneal.config.ts'), `export default ${JSON.stringify(config)}\n`)
  return ServerProcess.start(folder)
}

function makeFamilies(models: string): void {
  const names = Object.keys(FAMILIES)
  const script = join(JUDGES, 'make-families.py')
  const { status, stderr } = spawnSync(PYTHON!, [script, '--plain', models, '7', ...names], {
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(stderr)
  for (const name of names) {
    adoptTemplate(join(models, name), FAMILIES[name])
    // In a window of N tokens, Ollama lets N + 1 see each other (its kvcache/causal.go), which counts among 16.
    const config = JSON.parse(readFileSync(join(models, name, 'config.json'), 'utf8'))
    if (config.sliding_window === 16) config.sliding_window = 200
    writeFileSync(join(models, name, 'config.json'), JSON.stringify(config))
  }
}

async function ask<Answer>(path: string, body?: object, key?: string): Promise<Answer> {
  const headers = { 'content-type': 'application/json', ...(key && { authorization: `Bearer ${key}` }) }
  const init = body ? { method: 'POST', body: JSON.stringify(body) } : {}
  const response = await fetch(`${server.url}${path}`, { ...init, headers })
  if (!response.ok) throw new Error(`${path}: ${await response.text()}`)
  return (await response.json()) as Answer
}

interface Job {
  id: string
  status: string
  error: { message: string } | null
}

/** Exports a model for Ollama; resolves to the export's id. */
async function exported(model: string, type: (typeof TYPES)[number]): Promise<string> {
  const bits = type === 'Q8_0' ? 8 : type.startsWith('Q4') ? 4 : 16
  const dtype = { F32: 'float32', F16: 'float16', BF16: 'bfloat16' }[type as string]
  const quantized = bits === 16 ? {} : { method: 'rtn', report_dataset: 'small_world', report_tokens: 64 }
  const more = bits === 16 ? { dtype } : { gguf_type: type, ...quantized }
  let job = await ask<Job>('/v1/exports', { model, format: 'ollama', bits, ...more })
  while (!['succeeded', 'failed', 'cancelled'].includes(job.status)) {
    await new Promise((done) => setTimeout(done, 100))
    job = await ask<Job>(`/v1/exports/${job.id}`)
  }
  if (job.status !== 'succeeded') throw new Error(job.error?.message)
  return job.id
}

const hostOf = (url: string) => new URL(url).host
const exportFolder = (id: string) => join(workspace, 'server/saves/exports', id)

async function pulled(id: string, host = hostOf(server.url), into = ollama): Promise<string> {
  const name = `${host}/anneal/${id}`
  await into.command(['pull', '--insecure', name])
  return name
}

/** Digests of the layers of a model that Ollama has, by kind. */
function layersOf(name: string, { models } = ollama): Record<string, string> {
  const file = join(models, 'manifests', name, 'latest')
  const { layers } = JSON.parse(readFileSync(file, 'utf8')) as {
    layers: { mediaType: string; digest: string }[]
  }
  return Object.fromEntries(layers.map(({ mediaType, digest }) => [mediaType.split('.').at(-1)!, digest]))
}

function blob(digest: string, { models } = ollama): Buffer {
  return readFileSync(join(models, 'blobs', digest.replace(':', '-')))
}

function digestOfBlob(digest: string, of = ollama): string {
  return `sha256:${createHash('sha256').update(blob(digest, of)).digest('hex')}`
}

interface OurToken {
  token: string
  logprob: number
  top_logprobs: { token: string; logprob: number }[]
}
interface OurAnswer {
  choices: { message: { content: string }; finish_reason: string; logprobs: { content: OurToken[] } }[]
  usage: { prompt_tokens: number }
}

/** Asks both, and compares prompts, lengths, and tokens up to the first two that are about as likely. */
async function expectAlike(
  ours: string,
  theirs: string,
  messages: readonly OllamaMessage[],
  tolerance: number,
) {
  const rendered = await ask<{ text: string; tokens: number[] }>('/v1/chat/completions/render', {
    model: ours,
    messages,
  })
  const { bos } = loadTokenizer(join(workspace, 'models', ours)).tokens
  // Ollama puts the token itself, where the file says so.
  expect([rendered.text, rendered.text.replace(bos ?? '', '')]).toContain(
    await ollama.prompt(theirs, messages),
  )

  const question = {
    model: ours,
    messages,
    temperature: 0,
    max_tokens: COUNT,
    logprobs: true,
    top_logprobs: 20,
  }
  const { choices, usage } = await ask<OurAnswer>('/v1/chat/completions', question)
  const { message, finish_reason: reason, logprobs } = choices[0]!
  const answer = await ollama.answer(theirs, messages, COUNT)
  expect(answer.prompt_eval_count).toBe(usage.prompt_tokens)
  for (const [index, { token, logprob }] of (answer.logprobs ?? []).entries()) {
    const own = logprobs.content[index]
    if (own === undefined) break
    if (own.token !== token) {
      const near = own.top_logprobs.find((other) => other.token === token)
      expect(own.logprob - (near?.logprob ?? Number.NEGATIVE_INFINITY), `${index}: ${token}`).toBeLessThan(
        tolerance,
      )
      return
    }
    expect(Math.abs(own.logprob - logprob), `${index}: ${token}`).toBeLessThan(tolerance)
  }
  // Where pieces begin with a blank, transformers and this engine drop that of a text's first one.
  expect(answer.message.content.trimStart()).toBe(message.content.trimStart())
  expect(answer.done_reason).toBe(reason)
}

/** In the manner of Qwen3's. */
const THINKING = `{% for message in messages %}<{{ message.role }}>{{ message.content }}</{{ message.role }}>{% endfor %}
{%- if add_generation_prompt %}<assistant>{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}`

function showsSystem(template: ChatTemplate): boolean {
  try {
    return template.render([...QUESTIONS[1]!]).includes(QUESTIONS[1]![0]!.content)
  } catch {
    return false
  }
}

/** A conversation for a template that has no place for a system text. */
const joined = ([system, first, ...rest]: readonly OllamaMessage[]): OllamaMessage[] => [
  { role: 'user', content: `${system!.content}\n\n${first!.content}` },
  ...rest,
]

const options = { timeout: 240_000 }

describe.skipIf(!ready)(`ollama pull${NEEDS}`, () => {
  it.each(TYPES)('gets a %s file whole, shows what it is, and answers as we do', options, async (type) => {
    const id = await exported('tiny', type)
    const name = await pulled(id)
    for (const digest of Object.values(layersOf(name))) expect(digestOfBlob(digest)).toBe(digest)
    const shown = await ollama.command(['show', name])
    expect(shown).toMatch(/architecture +llama\b/)
    expect(shown).toMatch(new RegExp(`quantization +${type}\\b`))
    expect(shown).toMatch(/num_ctx +512\b/)
    expect(shown).toContain('"<|im_end|>"')

    const outputFolder = join(workspace, 'models', `tiny-${type}`)
    await importGguf({ file: join(exportFolder(id), `model-${type}.gguf`), outputFolder, dtype: 'float32' })
    for (const messages of QUESTIONS)
      await expectAlike(
        `tiny-${type}`,
        name,
        messages,
        TOLERANCE[type.startsWith('Q') ? 'quantized' : 'plain'],
      )
  })

  it('goes on in the middle of a file whose connection broke', options, async () => {
    const id = await exported('tiny', 'F16')
    const fresh = await OllamaProcess.start(PROGRAM!, join(workspace, 'cut'))
    const proxy = await CuttingProxy.start(server.url, 'cut', 1_000_000)
    const { model } = layersOf(await pulled(id, proxy.host, fresh), fresh)
    expect(digestOfBlob(model!, fresh)).toBe(model)
    const starts = proxy.ranges.map((range) => Number(/^bytes=(\d+)-/.exec(range)![1]))
    expect(starts.some((start) => start > 0)).toBe(true)
    proxy.close()
    await fresh.stop()
  })

  it('ends a download at its next start when it was killed in the middle', options, async () => {
    const id = await exported('tiny', 'F16')
    const folder = join(workspace, 'killed')
    const first = await OllamaProcess.start(PROGRAM!, folder)
    const proxy = await CuttingProxy.start(server.url, 'hold', 1_000_000)
    const broken = Promise.allSettled([pulled(id, proxy.host, first)])
    await proxy.reached
    await first.stop('SIGKILL')
    await broken
    const blobs = () => readdirSync(join(first.models, 'blobs'))
    expect(blobs().some((name) => name.endsWith('-partial'))).toBe(true)
    const next = await OllamaProcess.start(PROGRAM!, folder)
    const { model } = layersOf(await pulled(id, proxy.host, next), next)
    expect(digestOfBlob(model!, next)).toBe(model)
    expect(blobs().some((name) => name.includes('-partial'))).toBe(false)
    proxy.close()
    await next.stop()
  })

  it('is told why and what else to do by a server that asks for keys', options, async () => {
    const sha256 = createHash('sha256').update('key').digest('hex')
    const closed = await startServer('closed', { server: { apiKeys: [sha256] } })
    const name = `${hostOf(closed.url)}/anneal/export-5d20c8e17f64`
    await expect(ollama.command(['pull', '--insecure', name])).rejects.toThrow(
      /403: .*Ollama cannot send the API key.*ollama create NAME -f Modelfile/,
    )
    await closed.stop()
  })
})

describe.skipIf(!ready)(`ollama create${NEEDS}`, () => {
  it('makes of the folder what pull makes of the registry', options, async () => {
    const id = await exported('tiny', 'F16')
    const name = await pulled(id)
    await ollama.command(['create', 'from-folder', '-f', 'Modelfile'], exportFolder(id))
    const { model, template, params } = layersOf(name)
    const made = layersOf('registry.ollama.ai/library/from-folder')
    expect([made.model, made.template]).toEqual([model, template])
    const parameters = (digest: string | undefined) => JSON.parse(blob(digest!).toString())
    expect(parameters(made.params)).toEqual(parameters(params))
    const details = async (of: string) => {
      const shown = (await ollama.post('show', { model: of })) as { details: { parent_model: string } }
      return { ...shown.details, parent_model: '' }
    }
    expect(await details('from-folder')).toEqual(await details(name))
  })

  it('lays our adapter file over the base as we do', options, async () => {
    const base = exportFolder(await exported('tiny', 'F16'))
    const [adapterFolder, folder] = [join(workspace, 'peft'), join(workspace, 'with-adapter')]
    writeAdapter(adapterFolder, randomAdapter(TINY, 4))
    const adapter = { modelFolder: TINY, adapterFolder, format: 'adapter-gguf', dtype: 'float32' } as const
    await exportAdapter({ ...adapter, outputFolder: folder })
    symlinkSync(join(base, 'model-F16.gguf'), join(folder, 'model-F16.gguf'))
    const modelfile = readFileSync(join(base, 'Modelfile'), 'utf8')
    writeFileSync(join(folder, 'Modelfile'), `${modelfile}ADAPTER ./adapter.gguf\n`)
    await ollama.command(['create', 'with-adapter', '-f', 'Modelfile'], folder)
    const outputFolder = join(workspace, 'models/tiny-merged')
    await mergeAdapter({ baseFolder: TINY, adapterFolder, outputFolder })
    for (const messages of QUESTIONS)
      await expectAlike('tiny-merged', 'with-adapter', messages, TOLERANCE.plain)
  })
})

/** Templates by name: those that are built in, and published ones where the Python has a collection of them. */
function templates(): [name: string, template: ChatTemplate][] {
  const tokenizer = { ...loadTokenizer(TINY), tokens: { bos: '<s>', eos: '</s>' } }
  const named = [...Object.keys(FORMATS), 'empty']
  const builtIn = named.map((name): [string, ChatTemplate] => [name, resolveChatTemplate(tokenizer, name)])
  const where = 'import pathlib, trl; print(pathlib.Path(trl.__file__).parent / "chat_templates")'
  const { status, stdout } = spawnSync(PYTHON ?? 'false', ['-c', where], { encoding: 'utf8' })
  if (status !== 0) return builtIn
  const folder = stdout.trim().split('\n').at(-1)!
  const files = readdirSync(folder).filter((file) => file.endsWith('.jinja') && !LISTS.test(file))
  const published = files.map((file): [string, ChatTemplate] => {
    const chatTemplate = readFileSync(join(folder, file), 'utf8')
    return [file, resolveChatTemplate({ ...tokenizer, chatTemplate })]
  })
  return [...builtIn, ...published]
}
/** They take contents in parts, as models for pictures do. */
const LISTS = /^(idefics3|smolvlm|llava)/

describe.skipIf(!ready)(`ollama's templates${NEEDS}`, () => {
  it('render every format as its Jinja template does', options, async () => {
    const name = await pulled(await exported('tiny', 'F16'))
    const { model } = layersOf(name)
    for (const [format, template] of templates()) {
      const form = readTurnForm(template)
      await ollama.post('create', {
        model: 'format',
        files: { 'model.gguf': model },
        template: goTemplate(form, { reasons: template.thinks }),
        stream: false,
      })
      for (const messages of QUESTIONS) {
        const [first] = messages
        const isRefused = first?.role === 'system' && !showsSystem(template)
        const expected = isRefused ? joined(messages) : messages
        const text = template.render(expected, { addGenerationPrompt: true })
        expect(await ollama.prompt('format', messages), format).toBe(text)
      }
    }
  })

  it('know by the template that a model thinks, and turn it off as the template does', options, async () => {
    const template = resolveChatTemplate({ ...loadTokenizer(TINY), chatTemplate: THINKING })
    const name = await pulled(await exported('tiny', 'F16'))
    const go = goTemplate(readTurnForm(template), { reasons: true })
    const files = { 'model.gguf': layersOf(name).model }
    await ollama.post('create', { model: 'thinker', files, template: go, stream: false })
    const { capabilities } = await ollama.post('show', { model: 'thinker' })
    expect(capabilities).toContain('thinking')
    const [messages] = QUESTIONS as [OllamaMessage[]]
    for (const think of [true, false]) {
      const variables = { enable_thinking: think }
      const text = template.render(messages, { addGenerationPrompt: true, variables })
      expect(await ollama.prompt('thinker', messages, { think })).toBe(text)
    }
  })
})

const NEEDS_FAMILIES = PYTHON ? '' : ' (skipped: JUDGE_PYTHON, with torch and transformers)'

describe.skipIf(!ready || !PYTHON)(`ollama with other families${NEEDS}${NEEDS_FAMILIES}`, () => {
  it.each(Object.keys(FAMILIES))('reads, asks and answers %s as we do', options, async (family) => {
    const name = await pulled(await exported(family, 'F16'))
    for (const messages of QUESTIONS.slice(1)) await expectAlike(family, name, messages, TOLERANCE.plain)
  })
})
