import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { dequantize } from '../../../engine/gguf/dequantize.ts'
import { type GgufBlockType, ggufBlocks, quantizeBlocks } from '../../../engine/quant/gguf-blocks.ts'
import { gaussian } from '../weights/tiny-model.ts'

/** Heavy-tailed weights with a block of zeros. */
function weights(): Float32Array {
  const values = gaussian(256 * 64, 7).map((value, index) => value * (index % 97 === 0 ? 0.3 : 0.05))
  return values.fill(0, 512, 768)
}

const relativeError = (exact: Float32Array, approximate: Float32Array) => {
  let error = 0
  let size = 0
  for (const [index, value] of exact.entries()) {
    error += (value - approximate[index]!) ** 2
    size += value ** 2
  }
  return Math.sqrt(error / size)
}

const types = Object.keys(ggufBlocks) as GgufBlockType[]

describe('quantizeBlocks', () => {
  // Digests of what quantize() of the Python package gguf 0.19.0 makes of the same weights.
  it.each([
    ['Q8_0', 'd63d30234c28a559'],
    ['Q4_0', 'e6b77bc491566fb3'],
    ['Q4_1', '2f958e7aa9c3a0bf'],
  ] as const)('packs %s byte for byte as ggml does', (type, digest) => {
    const bytes = quantizeBlocks(weights(), type)
    expect(createHash('sha256').update(bytes).digest('hex').slice(0, 16)).toBe(digest)
  })

  // Digests of the same arithmetic written as plain loops over float64 numbers.
  it.each([
    ['Q4_K', 'a992d8298ba0cd23'],
    ['Q6_K', '7dcfe1262bf502db'],
  ] as const)('packs %s by its search as float64 would', (type, digest) => {
    const bytes = quantizeBlocks(weights(), type)
    expect(createHash('sha256').update(bytes).digest('hex').slice(0, 16)).toBe(digest)
  })

  it.each([
    ['Q8_0', 0.008],
    ['Q6_K', 0.025],
    ['Q4_K', 0.085],
    ['Q4_1', 0.095],
    ['Q4_0', 0.13],
  ] as const)('keeps %s within its step of the weights', (type, bound) => {
    const values = weights()
    const error = relativeError(values, dequantize(type, quantizeBlocks(values, type), values.length))
    expect(error).toBeLessThan(bound)
    expect(error).toBeGreaterThan(bound / 2)
  })

  it.each(types)('keeps zeros exactly zero in %s', (type) => {
    const bytes = quantizeBlocks(new Float32Array(512), type)
    expect(dequantize(type, bytes, 512).every((value) => value === 0)).toBe(true)
  })

  it.each(types)('moves values by far less than a step when %s is packed again', (type) => {
    const values = dequantize(type, quantizeBlocks(weights(), type), 256 * 64)
    const again = dequantize(type, quantizeBlocks(values, type), values.length)
    expect(relativeError(values, again)).toBeLessThan(0.02)
  })

  it.each(types)('refuses a broken block of %s', (type) => {
    expect(() => quantizeBlocks(new Float32Array(ggufBlocks[type].blockSize + 1), type)).toThrow(
      /no whole number/,
    )
  })
})
