import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { baseLinearModules, openBase } from '../../../engine/quant/source.ts'
import { createRandom } from '../../../engine/random.ts'
import { decodeFloat32, encodeFloat32 } from '../../../engine/weights/dtypes.ts'
import { writeSafetensors } from '../../../engine/weights/safetensors.ts'
import { tinyLlama } from '../../src/engine-host/tiny-llama.ts'

const source = tinyLlama()

/** Fills a folder with random GPTQ or AWQ codes in place of the linear weights; tells the weights that those stand for. */
export function quantizedFolder(folder: string, method: 'gptq' | 'awq', actOrder = false) {
  cpSync(source, folder, { recursive: true })
  const config = JSON.parse(readFileSync(join(source, 'config.json'), 'utf8')) as Record<string, unknown>
  const groupSize = 8
  const quantization_config = { quant_method: method, bits: 4, group_size: groupSize, version: 'gemm' }
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, quantization_config }))
  const base = openBase(source)
  const linear = new Map(baseLinearModules(base).map((module) => [`${module.path}.weight`, module]))
  const random = createRandom(4)
  const dense = new Map<string, Float32Array>()
  const tensors = [...base.weights.entries.values()].flatMap(({ name, dtype, shape }) => {
    const module = linear.get(name)
    if (!module) return [{ name, dtype, shape, data: base.weights.readRaw(name) }]
    const { path, inFeatures, outFeatures } = module
    const groups = inFeatures / groupSize
    const groupIndex = Int32Array.from({ length: inFeatures }, (_, k) =>
      actOrder ? k % groups : Math.floor(k / groupSize),
    )
    const codes = Uint8Array.from({ length: inFeatures * outFeatures }, () => random.nextInt(16))
    const zeros = Uint8Array.from({ length: groups * outFeatures }, () => 1 + random.nextInt(15))
    const exact = Float32Array.from({ length: groups * outFeatures }, () => 0.01 + 0.02 * random.next())
    const scales = encodeFloat32(exact, 'float16')
    const rounded = decodeFloat32(scales, 'float16')
    dense.set(
      name,
      Float32Array.from({ length: inFeatures * outFeatures }, (_, i) => {
        const [n, k] = [Math.floor(i / inFeatures), i % inFeatures]
        const place = groupIndex[k]! * outFeatures + n
        return (codes[k * outFeatures + n]! - zeros[place]!) * rounded[place]!
      }),
    )
    const words = (rows: number, columns: number) => new Int32Array(rows * columns)
    const awqNibble = (n: number) => ((n & 1) << 2) | ((n & 7) >> 1)
    const qzeros = words(groups, outFeatures / 8)
    zeros.forEach((zero, i) => {
      const stored = method === 'gptq' ? zero - 1 : zero
      qzeros[i >> 3]! |= stored << (4 * (method === 'gptq' ? i & 7 : awqNibble(i)))
    })
    const qweight = words(inFeatures, outFeatures / 8)
    codes.forEach((code, i) => {
      const [k, n] = [Math.floor(i / outFeatures), i % outFeatures]
      if (method === 'gptq') qweight[(k >> 3) * outFeatures + n]! |= code << (4 * (k & 7))
      else qweight[i >> 3]! |= code << (4 * awqNibble(n))
    })
    const int32 = (values: Int32Array) => new Uint8Array(values.buffer)
    const qshape = method === 'gptq' ? [inFeatures / 8, outFeatures] : [inFeatures, outFeatures / 8]
    return [
      { name: `${path}.qweight`, dtype: 'I32' as const, shape: qshape, data: int32(qweight) },
      {
        name: `${path}.qzeros`,
        dtype: 'I32' as const,
        shape: [groups, outFeatures / 8],
        data: int32(qzeros),
      },
      { name: `${path}.scales`, dtype: 'F16' as const, shape: [groups, outFeatures], data: scales },
      ...(method === 'gptq'
        ? [{ name: `${path}.g_idx`, dtype: 'I32' as const, shape: [inFeatures], data: int32(groupIndex) }]
        : []),
    ]
  })
  writeSafetensors(join(folder, 'model.safetensors'), tensors)
  return { folder, dense }
}
