import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import { EngineError } from '../../../engine/errors.ts'
import { FILE_TYPES, type FileType } from '../../../src/datasets/files.ts'
import { countRows, readRows } from '../../../src/datasets/readers/index.ts'
import { collect, failureOf } from './helpers.ts'

const folder = mkdtempSync(join(tmpdir(), 'anneal-readers-'))

async function read(extension: string, content: string | Uint8Array) {
  const path = join(folder, `data${extension}`)
  writeFileSync(path, content)
  return collect(readRows({ type: FILE_TYPES[extension]!, paths: [path] }))
}
const values = async (extension: string, content: string | Uint8Array) =>
  (await read(extension, content)).map(({ row }) => row)

describe('JSON', () => {
  it('reads an array of rows, in order, with their numbers', async () => {
    const rows = await read('.json', '\uFEFF [{"a": 1}, {"a": "zwei", "b": [null]}]\n')
    expect(rows).toEqual([
      { row: { a: 1 }, place: 'data.json row 1' },
      { row: { a: 'zwei', b: [null] }, place: 'data.json row 2' },
    ])
  })

  it('reads any rows that JSON can hold as JSON.parse does', async () => {
    const rows = fc.array(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 4 })))
    await fc.assert(
      fc.asyncProperty(rows, async (expected) => {
        const text = JSON.stringify(expected)
        expect(await values('.json', text)).toEqual(JSON.parse(text))
      }),
      { numRuns: 60 },
    )
  })

  it('accepts JSON Lines under .json', async () => {
    expect(await values('.json', '{"a": 1}\n{"a": 2}\n')).toEqual([{ a: 1 }, { a: 2 }])
  })

  it('names the row that is broken', async () => {
    expect((await failureOf(read('.json', '[{"a": 1}, {"a": }]'))).message).toContain(
      'data.json row 2: not valid JSON',
    )
    expect((await failureOf(read('.json', '[{"a": 1}, {"a": 2}'))).message).toContain('data.json row 3')
    expect((await failureOf(read('.json', '[{"a": 1}, 7]'))).message).toBe(
      'data.json row 2: a row must be a JSON object, not a number.',
    )
    expect((await failureOf(read('.json', '"text"'))).message).toContain('must hold a JSON array')
  })

  it('refuses rows that are nested without end', async () => {
    const deep = `[{"a": ${'['.repeat(10_000)}${']'.repeat(10_000)}}]`
    expect((await failureOf(read('.json', deep))).message).toContain('nested deeper')
  })
})

describe('JSON Lines', () => {
  it('passes over blank lines and keeps U+2028 inside a string', async () => {
    expect(await values('.jsonl', '{"a": "x\u2028y"}\r\n\n{"a": 2}')).toEqual([{ a: 'x\u2028y' }, { a: 2 }])
  })

  it('names the line that is broken', async () => {
    expect((await failureOf(read('.jsonl', '{"a": 1}\n\n{"a": \n'))).message).toContain('data.jsonl line 3')
    expect((await failureOf(read('.jsonl', '[1]'))).message).toContain(
      'line 1: a row must be a JSON object, not a list',
    )
  })

  it('refuses text that is not UTF-8', async () => {
    const latin1 = Uint8Array.from([...'{"a": "'].map((c) => c.charCodeAt(0)).concat(0xe9, 0x22, 0x7d))
    expect((await failureOf(read('.jsonl', latin1))).message).toContain(
      'data.jsonl near line 1: the file is not UTF-8',
    )
  })
})

describe('CSV', () => {
  it('reads quoted fields as strings by the header', async () => {
    expect(await values('.csv', '\uFEFFq,a\n"1, 2",3\n"line\nbreak",""\n')).toEqual([
      { q: '1, 2', a: '3' },
      { q: 'line\nbreak', a: '' },
    ])
  })

  it('names the row that is broken, and a header that names a column twice', async () => {
    expect((await failureOf(read('.csv', 'q,a\n1,2\n1\n'))).message).toContain(
      'data.csv line 3: not valid CSV',
    )
    expect((await failureOf(read('.csv', 'q,q\n1,2\n'))).message).toContain('names "q" twice')
  })
})

describe('text', () => {
  it('makes a row of each line that is not blank', async () => {
    expect(await read('.txt', 'one\n\n  \ntwo\r\n')).toEqual([
      { row: { text: 'one' }, place: 'data.txt line 1' },
      { row: { text: 'two' }, place: 'data.txt line 4' },
    ])
  })
})

describe('Parquet', () => {
  it.each(['none', 'snappy', 'gzip'])('reads what pyarrow wrote with compression %s', async (compression) => {
    const path = fileURLToPath(new URL(`fixtures/rows-${compression}.parquet`, import.meta.url))
    const rows = await collect(readRows({ type: 'parquet', paths: [path] }))
    expect(rows.map(({ row }) => row)).toMatchObject([
      { instruction: 'Say hello.', input: '', output: 'Hello!', history: [] },
      { instruction: 'Count to three.', output: 'One, two, three.', history: [['Hi.', 'Hello.']] },
      { instruction: 'Sag guten Tag.', input: 'Höflich', output: 'Grüß Gott!' },
    ])
  })

  it('refuses what is no Parquet file', async () => {
    expect((await failureOf(read('.parquet', 'PAR1 no PAR1'))).message).toContain(
      'data.parquet row 1: not valid Parquet',
    )
  })
})

describe('readRows', () => {
  it('reads the files of a dataset one after another', async () => {
    const paths = ['a', 'b'].map((name) => join(folder, `${name}.txt`))
    for (const path of paths) writeFileSync(path, 'one\ntwo\n')
    expect(await countRows({ type: 'text', paths })).toBe(4)
  })

  it.each(Object.entries(FILE_TYPES))(
    'throws nothing but EngineError on garbage in %s',
    async (extension, type: FileType) => {
      const path = join(folder, `garbage${extension}`)
      const garbage = fc.oneof(
        fc.uint8Array({ maxLength: 200 }),
        fc.json().map((text) => new TextEncoder().encode(text)),
        fc.string().map((text) => new TextEncoder().encode(`[{"a":"${text}`)),
        fc
          .uint8Array({ maxLength: 60 })
          .map((bytes) => Buffer.concat([Buffer.from('PAR1'), bytes, Buffer.from('PAR1')])),
      )
      await fc.assert(
        fc.asyncProperty(garbage, async (bytes) => {
          writeFileSync(path, bytes)
          const error = await countRows({ type, paths: [path] }).catch((caught: unknown) => caught)
          if (typeof error !== 'number') expect(error).toBeInstanceOf(EngineError)
        }),
        { numRuns: 100 },
      )
    },
  )
})
