import { gigabytes } from '../../engine/units.ts'
import type { CudaFacts } from './cuda-facts.ts'
import { cudaProblems } from './cuda-problems.ts'

/** One line of `anneal doctor` about CUDA. */
export interface DeviceFinding {
  ok: boolean
  text: string
}

/**
 * What the doctor says of CUDA. Where nothing asks for it and it is not installed, that is no fault.
 * @param isAsked whether a setting names it
 */
export function cudaFindings(facts: CudaFacts, isAsked: boolean): DeviceFinding[] {
  const isInstalled = facts.provider.present.length > 0
  const problems = cudaProblems(facts)
  const [first] = problems
  if (!isAsked && !isInstalled && first) return [{ ok: true, text: `CUDA: ${first.text} ${first.remedy}` }]
  const told = problems.map(({ text, remedy, isOptional }) => {
    return { ok: isOptional, text: `CUDA: ${text} ${remedy}` }
  })
  const gpus = (facts.gpus ?? []).map(({ index, name, driver, freeBytes, totalBytes }) => {
    const memory = `${gigabytes(freeBytes)} of ${gigabytes(totalBytes)} free`
    return { ok: true, text: `cuda:${index} is ${name}, ${memory}, driver ${driver}` }
  })
  return [...told, ...gpus]
}
