import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { GraphBuilder } from '../../../engine/graph/builder.ts'
import { openModel } from '../../../engine/models/index.ts'
import { convertsHalf, selfTest } from '../../../engine/onnx/self-test.ts'
import { Session } from '../../../engine/onnx/session.ts'
import { packBase } from '../../../engine/quant/packed-base.ts'
import { openBase } from '../../../engine/quant/source.ts'
import { intTensor } from '../../../engine/tensor.ts'
import { ANNEAL_TINY } from '../../anneal-tiny.ts'
import { relativeToLargest } from '../../parity/reference.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'
import { WEBGPU, webgpuMissing } from '../../webgpu.ts'
import { nodesByProvider, runStep } from './device-steps.ts'
import { keptTensorTests } from './kept-tensors.ts'

const tiny = openModel(ANNEAL_TINY)
const missing = await webgpuMissing()
const hasHalf = missing === '' && (await convertsHalf(WEBGPU))
const halfMissing = hasHalf ? '' : " (skipped: the adapter has no 'shader-f16', as lavapipe has)"

// SwiftShader takes up to two seconds for a shader, and a busy machine several times as long.
describe.skipIf(missing !== '')(`the engine on WebGPU${missing}`, { timeout: 240_000 }, () => {
  it("a training step has the CPU's loss and gradients, with bf16 weights, and no node of it runs there", async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-profile-'))
    const cpu = await runStep({}, tiny)
    const gpu = await runStep({ device: WEBGPU, profilePrefix: join(folder, 'step') }, tiny)
    const nodes = nodesByProvider(folder)
    expect(nodes.CPUExecutionProvider ?? []).toEqual([])
    expect(nodes.WebGpuExecutionProvider?.length).toBeGreaterThan(500)
    expect(Math.abs(gpu.loss - cpu.loss) / cpu.loss).toBeLessThan(1e-5)
    const errors = gpu.gradients.map((gradient, index) => relativeToLargest(gradient, cpu.gradients[index]!))
    expect(Math.max(...errors)).toBeLessThan(1e-4)
  })

  it.skipIf(!hasHalf)(
    `with fp16 a step is as near to float32 as the CPU's with fp16${halfMissing}`,
    async () => {
      const half = { checkpointing: false, halfActivations: true }
      const exact = await runStep({}, tiny, { checkpointing: false })
      const [cpu, gpu] = [await runStep({}, tiny, half), await runStep({ device: WEBGPU }, tiny, half)]
      const worst = ({ gradients }: typeof cpu) =>
        Math.max(...gradients.map((gradient, index) => relativeToLargest(gradient, exact.gradients[index]!)))
      expect(Math.abs(gpu.loss - exact.loss) / exact.loss).toBeLessThan(1e-4)
      expect(worst(cpu)).toBeGreaterThan(1e-3) // else nothing was rounded
      expect(worst(gpu)).toBeGreaterThan(1e-3)
      expect(worst(gpu)).toBeLessThan(2e-2)
    },
  )

  it('a step over a base at 4 bits, looked up in a codebook, has them, too', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-packed-'))
    const source = openModel(tinyLlama())
    const packed = await packBase(openBase(source.folder), { scheme: 'nf4', folder })
    const model = { ...source, folder, weights: packed.weights }
    const [cpu, gpu] = [await runStep({}, model), await runStep({ device: WEBGPU }, model)]
    expect(Math.abs(gpu.loss - cpu.loss) / cpu.loss).toBeLessThan(1e-5)
    const errors = gpu.gradients.map((gradient, index) => relativeToLargest(gradient, cpu.gradients[index]!))
    expect(Math.max(...errors)).toBeLessThan(1e-4)
  })

  it('passes its self-test, which tells how long it takes beside the CPU', async () => {
    const { ok, reason, milliseconds, cpuMilliseconds, hasHalf } = await selfTest(WEBGPU)
    expect({ ok, reason }).toEqual({ ok: true, reason: expect.stringContaining('what the CPU computes') })
    expect(milliseconds).toBeGreaterThan(0)
    expect(cpuMilliseconds).toBeGreaterThan(0)
    if (process.env.VK_ICD_FILENAMES?.includes('swiftshader')) expect(hasHalf).toBe(false)
  })

  // a real GPU may well have room for these
  it.skipIf(!process.env.VK_ICD_FILENAMES?.includes('swiftshader'))(
    'a tensor that the device cannot hold is an error with a code, after which the session still answers',
    async () => {
      const g = new GraphBuilder()
      const size = g.input('size', 'int64', [2])
      const zeros = g.emit('Expand', [g.scalar(1), size], { shape: ['rows', 'columns'] })
      const sum = g.ReduceSum(zeros, [0, 1], 0)
      const session = await Session.create(g.finish([sum]), { device: WEBGPU })
      const run = (rows: number) =>
        session.run({ size: intTensor(BigInt64Array.of(BigInt(rows), 1024n), [2]) })
      for (const gigabytes of [1, 3]) {
        const failed = run(gigabytes * 2 ** 18)
        await expect(failed).rejects.toMatchObject({ kind: 'too_large', code: 'device_out_of_memory' })
      }
      expect((await run(3))[sum.name]!.data[0]).toBe(3072)
      await session.release()
    },
  )

  keptTensorTests(WEBGPU)
})
