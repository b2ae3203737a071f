import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import { EngineError } from '../../../engine/errors.ts'
import { readEntry } from '../../../src/datasets/entry.ts'
import { DatasetRegistry } from '../../../src/datasets/registry.ts'
import { datasetDirectory, failureOf } from './helpers.ts'

const rows = [{ instruction: 'a', output: 'b' }]
const registryOf = (files: Record<string, unknown>) =>
  new DatasetRegistry({ directories: [datasetDirectory(files)] })
const entryRegistry = (entry: unknown, files: Record<string, unknown> = {}) =>
  registryOf({ 'dataset_info.json': { set: entry }, ...files })

describe('DatasetRegistry.get', () => {
  it("fills in LLaMA-Factory's defaults", async () => {
    const registry = entryRegistry({ file_name: 'a.json' }, { 'a.json': rows })
    const { attributes, files } = await registry.get('set')
    expect(attributes).toMatchObject({
      formatting: 'alpaca',
      numSamples: null,
      columns: { prompt: 'instruction', query: 'input', response: 'output', history: null, system: null },
      tags: { role_tag: 'from', user_tag: 'human' },
    })
    expect(files.type).toBe('json')
  })

  it('reads a folder of files of one type, and refuses a mixed one', async () => {
    const files = { 'many/b.jsonl': '{}', 'many/a.jsonl': '{}', 'many/.hidden': 'x' }
    const { files: found } = await entryRegistry({ file_name: 'many' }, files).get('set')
    expect(found.paths.map((path) => path.slice(-7))).toEqual(['a.jsonl', 'b.jsonl'])
    const mixed = entryRegistry({ file_name: 'many' }, { ...files, 'many/c.csv': 'x' })
    expect((await failureOf(mixed.get('set'))).message).toContain('File types should be identical')
  })

  it('says what is wrong with a name, a file or a type', async () => {
    expect((await failureOf(registryOf({ 'dataset_info.json': {} }).get('nope'))).message).toBe(
      'Undefined dataset nope in dataset_info.json.',
    )
    const nowhere = new DatasetRegistry({ directories: ['/no/such/folder'] })
    expect((await failureOf(nowhere.get('nope'))).message).toBe(
      'Undefined dataset nope: there is no dataset_info.json in /no/such/folder.',
    )
    expect((await failureOf(entryRegistry({ file_name: 'gone.json' }).get('set'))).message).toContain(
      'File gone.json not found',
    )
    const arrow = entryRegistry({ file_name: 'a.arrow' }, { 'a.arrow': 'x' })
    expect((await failureOf(arrow.get('set'))).message).toContain(
      'Allowed file types: json, jsonl, csv, parquet, txt.',
    )
    expect((await failureOf(entryRegistry({}).get('set'))).message).toContain('no `file_name`')
  })

  it.each([
    [{ hf_hub_url: 'a/b' }, 'hf_hub_url'],
    [{ script_url: 'x' }, 'script_url'],
    [{ cloud_file_name: 's3://x' }, 'cloud_file_name'],
    [{ file_name: 'a.json', split: 'test' }, 'split'],
    [{ file_name: 'a.json', columns: { messages: 'm', images: 'i' } }, 'columns.images'],
  ])('refuses %j, naming the key', async (entry, key) => {
    const error = await failureOf(entryRegistry(entry, { 'a.json': rows }).get('set'))
    expect(error).toMatchObject({ kind: 'unsupported', param: `set.${key}` })
    expect(error.message).toContain(`\`${key}\``)
  })

  it('refuses names of columns and tags that it does not know, with those that it knows', () => {
    for (const wrong of [{ columns: { promt: 'q' } }, { tags: { user: 'human' } }]) {
      const [[field, given]] = Object.entries(wrong) as [[string, object]]
      const param = `x.${field}.${Object.keys(given)[0]}`
      expect(() => readEntry('x', { file_name: 'x.json', ...wrong })).toThrow(
        expect.objectContaining({
          code: 'malformed_dataset_entry',
          param,
          message: expect.stringMatching(/known: /),
        }),
      )
    }
  })

  it('refuses pairs whose columns are not named', async () => {
    const error = await failureOf(
      entryRegistry({ file_name: 'a.json', ranking: true }, { 'a.json': rows }).get('set'),
    )
    expect(error).toMatchObject({ kind: 'invalid', param: 'set.columns' })
    expect(error.message).toContain('`chosen` and `rejected`')
  })

  it('keeps file_name inside the directory, links included', async () => {
    const directory = datasetDirectory({ 'inside/dataset_info.json': {}, 'secret.json': rows })
    const inside = join(directory, 'inside')
    symlinkSync(join(directory, 'secret.json'), join(inside, 'link.json'))
    const names = ['../secret.json', join(directory, 'secret.json'), 'link.json', '.', 'a\0b']
    writeFileSync(
      join(inside, 'dataset_info.json'),
      JSON.stringify(Object.fromEntries(names.map((file_name, index) => [`set${index}`, { file_name }]))),
    )
    const registry = new DatasetRegistry({ directories: [inside] })
    for (const index of names.keys()) {
      expect((await failureOf(registry.get(`set${index}`))).code).toBe('dataset_file_outside')
    }
  })
})

describe('DatasetRegistry.list', () => {
  it('merges directories, the first one counting, and carries the errors of bad entries', async () => {
    const first = datasetDirectory({
      'dataset_info.json': { a: { file_name: 'a.json' }, hub: { hf_hub_url: 'x/y' } },
      'a.json': rows,
    })
    const second = datasetDirectory({
      'dataset_info.json': { a: { file_name: 'gone.json' }, b: { file_name: 'b.json' } },
    })
    const list = await new DatasetRegistry({ directories: [first, second, join(second, 'none')] }).list()
    expect(
      list.map(({ name, source }) => [name, source instanceof EngineError ? source.code : 'ok']),
    ).toEqual([
      ['a', 'ok'],
      ['hub', 'unsupported_dataset'],
      ['b', 'dataset_file_missing'],
    ])
  })

  it('reports a dataset_info.json that is no JSON object', async () => {
    for (const content of ['{', '[]', 'null']) {
      expect((await failureOf(registryOf({ 'dataset_info.json': content }).list())).code).toBe(
        'malformed_dataset_info',
      )
    }
  })

  it('throws nothing but EngineError on any entry', () => {
    fc.assert(
      fc.property(fc.anything(), (entry) => {
        try {
          readEntry('set', entry)
        } catch (error) {
          expect(error).toBeInstanceOf(EngineError)
        }
      }),
    )
  })
})

describe('DatasetRegistry.add', () => {
  const staged = (directory: string, name: string) => {
    const path = join(directory, `.${name}.json`)
    writeFileSync(path, JSON.stringify(rows))
    return path
  }

  it('moves the file and keeps the other entries, also when many are added at once', async () => {
    const directory = datasetDirectory({ 'dataset_info.json': { old: { file_name: 'old.json', note: 1 } } })
    const registry = new DatasetRegistry({ directories: [directory] })
    const names = ['a', 'b', 'c', 'd']
    await Promise.all(
      names.map((name) => registry.add(name, { formatting: 'alpaca' }, staged(directory, name))),
    )
    const info = JSON.parse(readFileSync(join(directory, 'dataset_info.json'), 'utf8'))
    expect(Object.keys(info)).toEqual(['old', ...names])
    expect(info.old).toEqual({ file_name: 'old.json', note: 1 })
    expect(await registry.countRows(await registry.get('c'))).toBe(1)
  })

  it('does not overwrite a file that is not registered', async () => {
    const directory = datasetDirectory({ 'mine.json': 'precious' })
    const registry = new DatasetRegistry({ directories: [directory] })
    expect((await failureOf(registry.add('mine', {}, staged(directory, 'x')))).code).toBe('dataset_exists')
    expect(readFileSync(join(directory, 'mine.json'), 'utf8')).toBe('precious')
  })

  it('refuses a taken name in any directory and names that could be paths', async () => {
    const first = datasetDirectory({ 'dataset_info.json': { a: { file_name: 'a.json' } } })
    const second = datasetDirectory({})
    mkdirSync(join(second, 'up'))
    const registry = new DatasetRegistry({ directories: [first, join(second, 'up')] })
    expect((await failureOf(registry.add('a', {}, staged(second, 'a')))).code).toBe('dataset_exists')
    for (const name of ['../x', 'a/b', '', '.hidden', 'a'.repeat(65)]) {
      expect((await failureOf(registry.add(name, {}, staged(second, 'x')))).code).toBe(
        'malformed_dataset_name',
      )
    }
    await registry.add('new', {}, staged(second, 'new'))
    expect(await registry.countRows(await registry.get('new'))).toBe(1)
  })
})
