import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { loadDataset } from '../../../src/datasets/load.ts'
import { DatasetRegistry } from '../../../src/datasets/registry.ts'
import { renameKeys } from '../../../src/datasets/rename.ts'
import { registerUpload, stageUpload, type UploadEntry } from '../../../src/datasets/upload.ts'
import { chunks, datasetDirectory, failureOf } from './helpers.ts'

const jsonl = '{"instruction": "q", "output": "a"}\n'

function uploads(files: Record<string, unknown> = {}) {
  const directory = datasetDirectory({ 'dataset_info.json': {}, ...files })
  const before = readdirSync(directory)
  return {
    registry: new DatasetRegistry({ directories: [directory] }),
    directory,
    left: () => readdirSync(directory).filter((name) => !before.includes(name)),
  }
}

/** A whole upload, as the route has it: to a file, then into the registry. */
async function upload(
  registry: DatasetRegistry,
  content: AsyncIterable<Uint8Array>,
  options: { name: string; extension: string; limitBytes: number; entry?: UploadEntry },
) {
  const staged = await stageUpload(registry, content, options)
  return registerUpload(registry, staged, options.name, options.entry ?? {})
}

describe('an upload', () => {
  const options = { name: 'mine', extension: '.jsonl', limitBytes: 1000 }

  it('streams, checks and registers a file', async () => {
    const { registry, left } = uploads()
    const source = await upload(registry, chunks(jsonl.slice(0, 7), jsonl.slice(7), jsonl), options)
    expect(source).toMatchObject({ name: 'mine', files: { type: 'jsonl', bytes: 2 * jsonl.length } })
    expect(left()).toEqual(['mine.jsonl'])
    expect((await loadDataset(registry, 'mine', { stage: 'sft' })).rows).toBe(2)
  })

  it('registers columns and tags with it', async () => {
    const { registry } = uploads()
    const entry = { columns: { prompt: 'q', response: 'a' } }
    await upload(registry, chunks('{"q": "1", "a": "2"}'), { ...options, entry })
    expect((await registry.get('mine')).attributes.columns).toMatchObject({
      prompt: 'q',
      response: 'a',
      query: null,
    })
  })

  interface Upload {
    content?: string
    extension?: string
    name?: string
    entry?: UploadEntry
  }
  const failures: [string, Upload][] = [
    ['payload_too_large', { content: jsonl.repeat(100) }],
    ['malformed_row', { content: `${jsonl}{"instruction": ` }],
    ['no_valid_samples', { content: '{"query": "q"}' }],
    ['no_valid_samples', { content: '' }],
    ['unsupported_file_type', { extension: '.exe' }],
    ['malformed_dataset_name', { name: '../up' }],
    ['unsupported_dataset', { entry: { columns: { images: 'i' } } }],
    ['dataset_exists', { name: 'taken' }],
  ]
  it.each(failures)('leaves nothing behind after %s', async (code, { content = jsonl, ...changes }) => {
    const { registry, left } = uploads({ 'dataset_info.json': { taken: { file_name: 'x.json' } } })
    const error = await failureOf(upload(registry, chunks(content), { ...options, ...changes }))
    expect(error.code).toBe(code)
    expect(left()).toEqual([])
    expect((await registry.list()).map(({ name }) => name)).toEqual(['taken'])
  })

  it('calls the file by the name of the dataset where it is wrong', async () => {
    const { registry } = uploads()
    const broken = await failureOf(upload(registry, chunks(`${jsonl}{"instruction": `), options))
    expect(broken.message).toMatch(/^mine\.jsonl line 2: not valid JSON/)
    const other = await failureOf(upload(registry, chunks('{"query": "q"}'), options))
    expect(other.message).toContain('mine.jsonl line 1: it has neither')
  })

  it('leaves nothing behind when the client goes away', async () => {
    const { registry, left } = uploads()
    async function* broken() {
      yield* chunks(jsonl)
      throw new Error('aborted')
    }
    await expect(upload(registry, broken(), options)).rejects.toThrow('aborted')
    expect(left()).toEqual([])
  })
})

describe('renameKeys', () => {
  const files = {
    'dataset_info.json': { faq: { file_name: 'faq.json' } },
    'faq.json': [
      { query: 'q', response: 'a', id: 1 },
      { query: 'r', response: 'b' },
    ],
  }

  it('writes a new dataset that alpaca readers take', async () => {
    const { registry, directory } = uploads(files)
    const { source, rows } = await renameKeys(registry, 'faq', { name: 'faq_alpaca' })
    expect(rows).toBe(2)
    expect(source.files.paths[0]).toContain('faq_alpaca.json')
    expect(JSON.parse(readFileSync(join(directory, 'faq_alpaca.json'), 'utf8'))).toEqual([
      { instruction: 'q', output: 'a', id: 1 },
      { instruction: 'r', output: 'b' },
    ])
    const { conversations } = await loadDataset(registry, 'faq_alpaca', { stage: 'sft' })
    expect(conversations).toHaveLength(2)
  })

  it.each([
    ['unknown_column', { rename: { question: 'instruction' } }],
    ['column_exists', { rename: { query: 'response' } }],
    ['column_exists', { rename: { query: 'x', response: 'x' } }],
    ['dataset_exists', { name: 'faq' }],
    ['no_valid_samples', { rename: { query: 'x' } }],
  ])('leaves nothing behind after %s', async (code, changes) => {
    const { registry, left } = uploads(files)
    expect((await failureOf(renameKeys(registry, 'faq', { name: 'new', ...changes }))).code).toBe(code)
    expect(left()).toEqual([])
  })
})
