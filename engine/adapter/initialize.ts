import { elementCount } from '../tensor.ts'
import { createRandom } from '../train/random.ts'

/**
 * PEFT's start of LoRA: A uniform in ±1/√in (Kaiming with a = √5), B zero, so that training begins at the base model.
 * Each tensor draws from a stream of its own, so its values depend on the seed and its place alone.
 */
export function initializeLora(seed: number): (name: string, shape: readonly number[]) => Float32Array {
  let stream = 0
  return (name, shape) => {
    const data = new Float32Array(elementCount(shape))
    if (!name.includes('.lora_A.')) return data
    const random = createRandom(seed, ++stream)
    const bound = 1 / Math.sqrt(shape[1]!)
    for (let i = 0; i < data.length; i++) data[i] = bound * (2 * random.next() - 1)
    return data
  }
}
