import { describe, expect, it } from 'vitest'
import { formatDevice, parseDevice } from '../../../engine/onnx/device.ts'
import { selfTest } from '../../../engine/onnx/self-test.ts'

describe('parseDevice', () => {
  it('reads every name and writes it back', () => {
    expect(parseDevice('auto')).toBe('auto')
    for (const name of ['cpu', 'webgpu', 'cuda', 'cuda:0', 'cuda:12']) {
      const device = parseDevice(name)
      expect(device === 'auto' ? device : formatDevice(device)).toBe(name)
    }
  })

  it('refuses what is no device, with what would be right', () => {
    for (const name of [
      '',
      'gpu',
      'CUDA',
      'cuda:',
      'cuda:-1',
      'cuda:1.5',
      'cuda:1000',
      'cpu:0',
      'webgpu:1',
    ]) {
      expect(() => parseDevice(name)).toThrow(
        expect.objectContaining({ code: 'invalid_device', param: 'device' }),
      )
    }
  })
})

describe('selfTest', () => {
  it('the CPU passes', async () => {
    const { ok, milliseconds } = await selfTest({ kind: 'cpu' })
    expect(ok).toBe(true)
    expect(milliseconds).toBeGreaterThan(0)
  })
})
