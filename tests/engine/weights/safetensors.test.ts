import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import { SafetensorsWriter, WeightFolder, writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { readSafetensorsHeader } from '../../../engine/weights/safetensors-header.ts'
import { scratchFolder } from './tiny-model.ts'

let folder: string
let path: string
beforeEach(() => {
  folder = scratchFolder()
  path = join(folder, 'model.safetensors')
})
afterEach(() => rmSync(folder, { recursive: true }))

/** A file with any header and `dataBytes` of data, wherever the header says they are. */
function fileWith(header: unknown, dataBytes = 0, length?: bigint): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header))
  const prefix = Buffer.alloc(8)
  prefix.writeBigUInt64LE(length ?? BigInt(json.length))
  return Buffer.concat([prefix, json, Buffer.alloc(dataBytes)])
}

function refuse(content: Buffer, message: RegExp): void {
  writeFileSync(path, content)
  expect(() => readSafetensorsHeader(path)).toThrow(message)
  expect(() => readSafetensorsHeader(path)).toThrow(EngineError)
}

const tensor = (dtype: unknown, shape: unknown, ...offsets: unknown[]) => ({
  dtype,
  shape,
  data_offsets: offsets,
})

describe('readSafetensorsHeader', () => {
  it('gives names, shapes, absolute offsets and metadata', () => {
    const header = {
      __metadata__: { format: 'pt' },
      a: tensor('F32', [2, 1], 0, 8),
      b: tensor('I64', [], 8, 16),
    }
    writeFileSync(path, fileWith(header, 16))
    const start = 8 + JSON.stringify(header).length
    expect(readSafetensorsHeader(path)).toEqual({
      metadata: { format: 'pt' },
      entries: [
        { name: 'a', dtype: 'F32', shape: [2, 1], file: 'model.safetensors', offset: start, byteLength: 8 },
        { name: 'b', dtype: 'I64', shape: [], file: 'model.safetensors', offset: start + 8, byteLength: 8 },
      ],
    })
  })

  it('takes tensors of no elements and of 4 bits', () => {
    writeFileSync(path, fileWith({ a: tensor('F4', [3, 2], 0, 3), b: tensor('F32', [0, 7], 3, 3) }, 3))
    expect(readSafetensorsHeader(path).entries.map(({ byteLength }) => byteLength)).toEqual([3, 0])
  })

  it.each<[string, Buffer, RegExp]>([
    ['an empty file', Buffer.alloc(0), /0 bytes, fewer than the 8/],
    [
      'a length beyond the limit',
      fileWith('{}', 0, 25_000_001n),
      /claims 25000001 bytes; the limit is 25000000/,
    ],
    ['a length of 2^64 - 1', fileWith('{}', 0, 2n ** 64n - 1n), /claims 18446744073709551615 bytes/],
    ['a length beyond the file', fileWith('{}', 0, 100n), /claims 100 bytes, but the file has only 10/],
    ['a header that is no object', fileWith('[]'), /does not begin with '{'/],
    ['broken JSON', fileWith('{"a":'), /not JSON/],
    [
      'broken UTF-8',
      Buffer.concat([fileWith('', 0, 4n), Buffer.from('{"\xff"', 'latin1')]),
      /not JSON in UTF-8/,
    ],
    ['an entry that is no object', fileWith({ a: 1 }), /tensor "a": its entry is not an object/],
    ['an unknown dtype', fileWith({ a: tensor('F31', [1], 0, 4) }, 4), /tensor "a": unknown dtype "F31"/],
    ['a dtype from the prototype', fileWith({ a: tensor('toString', [1], 0, 4) }, 4), /unknown dtype/],
    ['a negative dimension', fileWith({ a: tensor('F32', [-1], 0, 4) }, 4), /shape \[-1\]/],
    ['a fractional dimension', fileWith({ a: tensor('F32', [0.5], 0, 2) }, 2), /shape \[0.5\]/],
    ['an unsafe dimension', fileWith({ a: tensor('F32', [2 ** 53], 0, 4) }, 4), /shape \[9007199254740992\]/],
    [
      'an overflowing shape',
      fileWith({ a: tensor('F32', [2 ** 40, 2 ** 40, 0], 0, 0) }),
      /no whole, countable size/,
    ],
    ['half a byte', fileWith({ a: tensor('F4', [1], 0, 1) }, 1), /no whole, countable size/],
    [
      'a shape of another size',
      fileWith({ a: tensor('F32', [2], 0, 4) }, 4),
      /takes 8 bytes, but data_offsets cover 4/,
    ],
    ['offsets backwards', fileWith({ a: tensor('F32', [1], 8, 4) }, 8), /end before they begin/],
    ['three offsets', fileWith({ a: tensor('F32', [1], 0, 4, 8) }, 8), /not a pair/],
    ['a negative offset', fileWith({ a: tensor('F32', [1], -4, 0) }), /not a pair of non-negative/],
    ['a tensor beyond the file', fileWith({ a: tensor('F32', [2 ** 40], 0, 2 ** 42) }, 4), /cut short/],
    ['a gap', fileWith({ a: tensor('U8', [1], 0, 1), b: tensor('U8', [1], 2, 3) }, 3), /"b".*leaves a gap/],
    ['an overlap', fileWith({ a: tensor('U8', [2], 0, 2), b: tensor('U8', [2], 1, 3) }, 3), /"b".*overlaps/],
    ['data that no tensor has', fileWith({ a: tensor('U8', [1], 0, 1) }, 2), /its tensors end at byte/],
    ['metadata that is no text', fileWith({ __metadata__: { a: 1 } }), /__metadata__ has a number under "a"/],
    ['deep nesting', fileWith(`{"a":${'['.repeat(200_000)}`), /opens 200001 brackets/],
    [
      'too many tensors',
      fileWith(Object.fromEntries(Array.from({ length: 50_002 }, (_, i) => [`t${i}`, 0]))),
      /lists 50002 tensors; the limit is 50000/,
    ],
  ])('refuses %s', (_, content, message) => refuse(content, message))

  it('refuses a folder in place of a file', () => {
    mkdirSync(path)
    expect(() => readSafetensorsHeader(path)).toThrow(/model\.safetensors .* it is not a regular file/)
  })

  it('says which file is missing', () => {
    expect(() => readSafetensorsHeader(join(folder, 'none'))).toThrow(/none cannot be opened/)
  })

  it('only ever fails with an EngineError, and without allocating, on mutated files', () => {
    const valid = fileWith(
      { __metadata__: { format: 'pt' }, a: tensor('F32', [3, 2], 0, 24), b: tensor('BF16', [4], 24, 32) },
      32,
    )
    const edit = fc.record({ at: fc.nat(valid.length - 1), byte: fc.nat(255) })
    const mutation = fc.record({ edits: fc.array(edit, { maxLength: 4 }), keep: fc.nat(valid.length) })
    const before = process.memoryUsage().arrayBuffers
    fc.assert(
      fc.property(mutation, fc.boolean(), ({ edits, keep }, cut) => {
        const mutated = Buffer.from(valid.subarray(0, cut ? keep : valid.length))
        for (const { at, byte } of edits) if (at < mutated.length) mutated[at] = byte
        expectSafe(mutated)
      }),
      { seed: 7, numRuns: 1500 },
    )
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64e6)
  })

  it('only ever fails with an EngineError on any JSON as header', () => {
    const field = fc.oneof(
      fc.jsonValue({ maxDepth: 2 }),
      fc.constantFrom('F32', 'BF16', [0, 4], [1], [2 ** 52, 8]),
    )
    const entry = fc.record({ dtype: field, shape: field, data_offsets: field }, { requiredKeys: [] })
    const header = fc.dictionary(fc.string(), fc.oneof(entry, fc.jsonValue({ maxDepth: 2 })))
    fc.assert(
      fc.property(header, fc.nat(16), (value, dataBytes) => expectSafe(fileWith(value, dataBytes))),
      { seed: 8, numRuns: 500 },
    )
  })

  /** Either refused on purpose, or every tensor lies inside the file. */
  function expectSafe(content: Buffer): void {
    writeFileSync(path, content)
    try {
      for (const { offset, byteLength } of readSafetensorsHeader(path).entries) {
        expect(offset + byteLength).toBeLessThanOrEqual(content.length)
      }
    } catch (error) {
      expect(error).toBeInstanceOf(EngineError)
    }
  }
})

describe('SafetensorsWriter', () => {
  it('writes what the reader reads, in any order', () => {
    const planned = [
      { name: 'bytes', dtype: 'U8' as const, shape: [3] },
      { name: 'wide', dtype: 'F32' as const, shape: [2] },
    ]
    const writer = new SafetensorsWriter(path, planned, { format: 'pt', made: 'here' })
    writer.write('bytes', Uint8Array.of(1, 2, 3))
    writer.write('wide', new Uint8Array(Float32Array.of(1.5, -2).buffer))
    expect(existsSync(path)).toBe(false)
    writer.finish()

    const weights = WeightFolder.open(folder)
    expect(weights.metadata).toEqual({ format: 'pt', made: 'here' })
    expect(weights.readFloat32('wide')).toEqual(Float32Array.of(1.5, -2))
    expect(weights.readRaw('bytes')).toEqual(Uint8Array.of(1, 2, 3))
    expect(weights.entry('wide').offset % 8).toBe(0)
    expect(readFileSync(path).length).toBe(writer.byteLength)
    weights.close()
  })

  it('leaves nothing when it is aborted', () => {
    new SafetensorsWriter(path, [{ name: 'a', dtype: 'F32', shape: [1] }]).abort()
    expect(readdirSync(folder)).toEqual([])
  })

  it('refuses to finish with a tensor missing, or to take one of another size', () => {
    const writer = new SafetensorsWriter(path, [{ name: 'a', dtype: 'F32', shape: [1] }])
    expect(() => writer.finish()).toThrow(/not written: a/)
    expect(() => writer.write('a', new Uint8Array(3))).toThrow(/a came with 3 bytes, expected 4/)
    writer.abort()
  })

  it('refuses a name twice', () => {
    const tensors = [1, 2].map((byte) => ({
      name: 'a',
      dtype: 'U8' as const,
      shape: [1],
      data: Uint8Array.of(byte),
    }))
    expect(() => writeSafetensors(path, tensors)).toThrow(/two tensors cannot both be called a/)
  })
})

describe('WeightFolder', () => {
  const one = (name: string) => ({ name, dtype: 'F32' as const, shape: [1], data: new Uint8Array(4) })
  const writeIndex = (weightMap: unknown) =>
    writeFileSync(join(folder, 'model.safetensors.index.json'), JSON.stringify({ weight_map: weightMap }))

  it('reads shards through the index', () => {
    writeSafetensors(join(folder, 'one.safetensors'), [one('a')])
    writeSafetensors(join(folder, 'two.safetensors'), [one('b'), one('not listed')])
    writeIndex({ a: 'one.safetensors', b: 'two.safetensors' })
    const weights = WeightFolder.open(folder)
    expect([...weights.entries.values()].map(({ name, file }) => [name, file])).toEqual([
      ['a', 'one.safetensors'],
      ['b', 'two.safetensors'],
    ])
    weights.close()
  })

  it('reads a file by name', () => {
    writeSafetensors(join(folder, 'adapter_model.safetensors'), [one('a')])
    const weights = WeightFolder.open(folder, { fileName: 'adapter_model.safetensors' })
    expect(weights.has('a')).toBe(true)
    weights.close()
  })

  it.each([
    '../one.safetensors',
    '/etc/one.safetensors',
    'x\\one.safetensors',
    '..',
    '',
    'one.bin',
    '.safetensors',
  ])('refuses the shard name %j', (shard) => {
    mkdirSync(join(folder, 'x'))
    writeSafetensors(join(folder, 'x', 'one.safetensors'), [one('a')])
    writeIndex({ a: shard })
    expect(() => WeightFolder.open(folder)).toThrow(/a is mapped to ".*", which is not the plain name/)
  })

  it('names the shard that is missing', () => {
    writeIndex({ a: 'one.safetensors' })
    expect(() => WeightFolder.open(folder)).toThrow(
      /index\.json names one\.safetensors, which is not in the folder/,
    )
  })

  it('names the tensor that is not in its shard', () => {
    writeSafetensors(join(folder, 'one.safetensors'), [one('a')])
    writeIndex({ b: 'one.safetensors' })
    expect(() => WeightFolder.open(folder)).toThrow(/b is in one\.safetensors, which does not have it/)
  })

  it('refuses an index without a weight_map', () => {
    writeIndex([])
    expect(() => WeightFolder.open(folder)).toThrow(/needs a weight_map/)
  })

  it('says what it looked for, and that a pickle is not read', () => {
    writeFileSync(join(folder, 'pytorch_model.bin'), '')
    expect(() => WeightFolder.open(folder)).toThrow(
      /neither model\.safetensors nor .* pytorch_model\.bin is a pickle/,
    )
  })

  it('only ever fails with an EngineError on any JSON as index', () => {
    writeSafetensors(join(folder, 'one.safetensors'), [one('a')])
    const shard = fc.oneof(
      fc.constantFrom('one.safetensors', '..', 'none.safetensors'),
      fc.jsonValue({ maxDepth: 1 }),
    )
    const weightMap = fc.oneof(fc.dictionary(fc.constantFrom('a', 'b', '__proto__'), shard), fc.jsonValue())
    fc.assert(
      fc.property(weightMap, (value) => {
        writeIndex(value)
        try {
          WeightFolder.open(folder).close()
        } catch (error) {
          expect(error).toBeInstanceOf(EngineError)
        }
      }),
      { seed: 9, numRuns: 200 },
    )
  })

  it('lists similar names for one that it does not have', () => {
    writeSafetensors(path, [one('model.layers.0.q_proj.weight'), one('x')])
    const weights = WeightFolder.open(folder)
    expect(() => weights.entry('layers.0.q_proj.weight')).toThrow(
      /similar names are model\.layers\.0\.q_proj\.weight$/,
    )
    weights.close()
  })

  it('refuses to read integers as weights', () => {
    writeSafetensors(path, [{ name: 'ids', dtype: 'I64', shape: [1], data: new Uint8Array(8) }])
    const weights = WeightFolder.open(folder)
    expect(() => weights.readFloat32('ids')).toThrow(
      /ids in .*model\.safetensors is I64; weights must be F32, F16 or BF16/,
    )
    weights.close()
  })
})
