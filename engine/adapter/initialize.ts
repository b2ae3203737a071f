import { createRandom } from '../random.ts'
import { elementCount } from '../tensor.ts'
import { rowNorms } from './merge.ts'
import { parseLoraName } from './peft.ts'

/**
 * PEFT's start of LoRA: A uniform in ±1/√in (Kaiming with a = √5), B zero, so that training begins at the base model.
 * DoRA's magnitudes start as the norms of the base's rows, and tensors that are trained as a whole as the base has them.
 * Each A draws from a stream of its own, so its values depend on the seed and its place alone.
 *
 * @param readWeight a tensor of the base by name; needed where there are magnitudes or whole tensors
 */
export function initializeLora(
  seed: number,
  readWeight?: (tensor: string) => Float32Array,
): (name: string, shape: readonly number[]) => Float32Array {
  let stream = 0
  const read = (tensor: string) => {
    if (readWeight) return readWeight(tensor)
    throw new Error(`${tensor} of the base is needed for the start of training`)
  }
  return (name, shape) => {
    const place = parseLoraName(name)
    if (!place) return read(name)
    if (place.part === 'magnitude') {
      const weight = read(`${place.modulePath}.weight`)
      return Float32Array.from(rowNorms(weight, weight.length / shape[0]!))
    }
    const data = new Float32Array(elementCount(shape))
    if (place.part === 'B') return data
    const random = createRandom(seed, ++stream)
    const bound = 1 / Math.sqrt(shape[1]!)
    for (let i = 0; i < data.length; i++) data[i] = bound * (2 * random.next() - 1)
    return data
  }
}
