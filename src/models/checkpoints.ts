import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'

export const ADAPTER_WEIGHTS = 'adapter_model.safetensors'

/** A complete checkpoint of a run: `checkpoint-N` in its output folder. */
export interface CheckpointFolder {
  step: number
  folder: string
  createdAt: Date
}

/** The checkpoints in a run's output folder, by step. A folder is renamed into place once complete. */
export function findCheckpoints(outputDir: string): CheckpointFolder[] {
  if (!existsSync(outputDir)) return []
  const found: CheckpointFolder[] = []
  for (const name of readdirSync(outputDir)) {
    const step = /^checkpoint-(\d{1,12})$/.exec(name)?.[1]
    if (step === undefined) continue
    const folder = join(outputDir, name)
    if (holdsWeights(folder)) found.push({ step: Number(step), folder, createdAt: statSync(folder).mtime })
  }
  return found.sort((a, b) => a.step - b.step)
}

/** Whether a folder holds an adapter or a whole model. */
export function holdsWeights(folder: string): boolean {
  return existsSync(join(folder, ADAPTER_WEIGHTS)) || existsSync(join(folder, 'config.json'))
}
