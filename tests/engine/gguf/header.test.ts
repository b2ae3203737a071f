import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gguf } from '@huggingface/gguf'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import '../../fixed-seed.ts'
import { EngineError } from '../../../engine/errors.ts'
import { readGgufFileHeader } from '../../../engine/gguf/header.ts'
import { NEEDS_SHARED, SHARED, sharedMissing } from '../../shared.ts'
import { scratchFolder } from '../weights/tiny-model.ts'
import { ggufBytes, text, u64 } from './gguf-bytes.ts'
import { tinyMetadata, tinyTensors } from './tiny-gguf.ts'

const scratch = scratchFolder()
const path = join(scratch, 'model.gguf')
afterAll(() => rmSync(scratch, { recursive: true }))

function read(bytes: Uint8Array) {
  writeFileSync(path, bytes)
  return readGgufFileHeader(path)
}

const whole = ggufBytes(tinyMetadata(), tinyTensors())

/** `whole` with a stretch replaced; `at` finds the place by the text before it. */
function changed(after: string, replacement: Buffer, skip = 0): Buffer {
  const at = whole.indexOf(after) + after.length + skip
  return Buffer.concat([whole.subarray(0, at), replacement, whole.subarray(at + replacement.length)])
}

const huge = u64(2n ** 64n - 1n)

describe('readGgufFileHeader', () => {
  it('reads back what was written', () => {
    const { version, metadata, tensors } = read(whole)
    expect(version).toBe(3)
    expect(metadata.get('llama.attention.layer_norm_rms_epsilon')).toBe(1e-5)
    expect(metadata.get('tokenizer.ggml.merges')).toEqual(['a b'])
    expect([...tensors.keys()]).toEqual(tinyTensors().map(({ name }) => name))
    const { offset, byteLength, shape } = tensors.get('blk.0.ffn_gate.weight')!
    expect(shape).toEqual([6, 8])
    const expected = tinyTensors().find(({ name }) => name === 'blk.0.ffn_gate.weight')!.bytes
    expect(new Uint8Array(whole.subarray(offset, offset + byteLength))).toEqual(expected)
  })

  it.each<[string, Buffer, RegExp]>([
    ['another magic number', Buffer.from('GGML-not-a-gguf-file-at-all'), /begins with "GGML"/],
    ['more tensors than any model', changed('GGUF', huge, 4), /number of tensors is 18446744073709551615/],
    ['more keys than any model', changed('GGUF', huge, 12), /number of metadata keys is/],
    ['a text longer than the file', changed('tokenizer.ggml.model', huge, 4), /length of the value/],
    [
      'a list longer than the file',
      changed('tokenizer.ggml.merges', u64(1_000_000), 8),
      /claims 1000000 elements/,
    ],
    ['a list longer than any vocabulary', changed('tokenizer.ggml.merges', huge, 8), /the limit is 2000000/],
    ['a list of lists', changed('tokenizer.ggml.merges', Buffer.from([9]), 4), /list of lists/],
    ['an unknown metadata type', changed('tokenizer.ggml.model', Buffer.from([99]), 0), /unknown type 99/],
    ['too many dimensions', changed('blk.0.ffn_gate.weight', Buffer.from([5])), /5 dimensions, not 1 to 4/],
    ['no dimensions', changed('blk.0.ffn_gate.weight', Buffer.from([0])), /0 dimensions/],
    ['a dimension of zero', changed('blk.0.ffn_gate.weight', u64(0), 4), /impossible shape \[6,0\]/],
    // 2^33 · 2^31 elements of 4 bytes are 2^66 bytes: in 64 bits nothing would be left of them
    [
      'dimensions whose product wraps around',
      changed('blk.0.ffn_gate.weight', Buffer.concat([u64(2n ** 33n), u64(2n ** 31n)]), 4),
      /impossible shape/,
    ],
    [
      'an offset beyond the file',
      changed('blk.0.ffn_gate.weight', u64(2 ** 40), 24),
      /but the file has only/,
    ],
    [
      'an offset beyond all numbers',
      changed('blk.0.ffn_gate.weight', huge, 24),
      /the offset of .* is 1844674/,
    ],
    ['a tensor over another', changed('blk.0.ffn_gate.weight', u64(0), 24), /overlaps the one before it/],
  ])('refuses %s', (_, bytes, message) => {
    expect(() => read(bytes)).toThrow(message)
    expect(() => read(bytes)).toThrow(EngineError)
  })

  it('refuses blocks that rows do not fill, and types that it does not read, by name', () => {
    const tensor = (type: number) =>
      ggufBytes({}, [{ name: 't', shape: [1, 8], type, bytes: new Uint8Array(64) }])
    expect(() => read(tensor(2))).toThrow(
      /"t" has rows of 8 elements, which are no whole blocks of 32 \(Q4_0\)/,
    )
    expect(() => read(tensor(13))).toThrow(/"t" is Q5_K; F32, F16, /)
    expect(() => read(tensor(77))).toThrow(/of type 77/)
  })

  it('refuses equal names, other versions and other byte orders', () => {
    const tensor = { name: 't', shape: [8], bytes: new Uint8Array(32) }
    expect(() => read(ggufBytes({}, [tensor, tensor]))).toThrow(/two tensors are called "t"/)
    const twice = Buffer.concat([Buffer.from('GGUF'), Buffer.from([3, 0, 0, 0]), u64(0), u64(2)])
    const entry = Buffer.concat([text('k'), Buffer.from([7, 0, 0, 0, 1])])
    expect(() => read(Buffer.concat([twice, entry, entry]))).toThrow(/"k" appears twice/)
    const version = (bytes: number[]) =>
      Buffer.concat([Buffer.from('GGUF'), Buffer.from(bytes), Buffer.alloc(64)])
    expect(() => read(version([1, 0, 0, 0]))).toThrow(/is GGUF version 1; versions 2 and 3 are read/)
    expect(() => read(version([0, 0, 0, 3]))).toThrow(/big-endian/)
  })

  it('refuses an impossible alignment', () => {
    for (const value of [0, 3, 1, 2 ** 31]) {
      const bytes = ggufBytes({ 'general.alignment': { u32: value } }, [])
      expect(() => read(bytes), String(value)).toThrow(/not a power of two/)
    }
  })

  it('refuses what is no file', () => {
    mkdirSync(join(scratch, 'folder'))
    expect(() => readGgufFileHeader(join(scratch, 'folder'))).toThrow(/not a regular file/)
    expect(() => readGgufFileHeader(join(scratch, 'absent'))).toThrow(/does not exist/)
  })

  it('refuses every file that is cut short, with the same kind of error', () => {
    fc.assert(
      fc.property(fc.nat(whole.length - 33), (length) => {
        expect(() => read(whole.subarray(0, length))).toThrow(EngineError)
      }),
      { numRuns: 300 },
    )
  })

  it('reads a damaged file within its bounds or refuses it on purpose', () => {
    const headerBytes = whole.length - 2000
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.nat(headerBytes), fc.integer({ min: 0, max: 255 })), {
          minLength: 1,
          maxLength: 8,
        }),
        (changes) => {
          const damaged = Buffer.from(whole)
          for (const [at, byte] of changes) damaged[at] = byte
          try {
            for (const { offset, byteLength } of read(damaged).tensors.values()) {
              expect(offset + byteLength).toBeLessThanOrEqual(damaged.length)
            }
          } catch (error) {
            expect(error).toBeInstanceOf(EngineError)
          }
        },
      ),
      { numRuns: 1000 },
    )
  })
})

describe.skipIf(sharedMissing('models'))(`the header of a published file ${NEEDS_SHARED}`, () => {
  it("agrees with @huggingface/gguf's", async () => {
    const file = join(SHARED, 'models/SmolLM2-135M-Instruct/model-q4_1.gguf')
    const { metadata, tensors } = readGgufFileHeader(file)
    const judge = await gguf(file, { allowLocalFile: true })
    expect(metadata.get('tokenizer.ggml.tokens')).toEqual(
      (judge.metadata as Record<string, unknown>)['tokenizer.ggml.tokens'],
    )
    expect(tensors.size).toBe(judge.tensorInfos.length)
    for (const { name, shape, offset } of judge.tensorInfos) {
      const tensor = tensors.get(name)!
      expect(tensor.shape.toReversed(), name).toEqual(shape.map(Number))
      expect(BigInt(tensor.offset), name).toBe(judge.tensorDataOffset + offset)
    }
  })
})
