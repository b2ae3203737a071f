import { join } from 'node:path'
import { writeFileDurably } from './atomic-folder.ts'
import { INDEX_FILE, WEIGHTS_FILE } from './weight-folder.ts'

/** What LLaMA-Factory's export_size means when it isn't given: 5 GB. */
export const DEFAULT_SHARD_BYTES = 5e9

/** Deals tensors out to files of at most `shardBytes`, in order; a single larger tensor has a file of its own. */
export function planShards<T extends { byteLength: number }>(
  tensors: readonly T[],
  shardBytes: number,
): T[][] {
  const shards: T[][] = []
  let room = 0
  for (const tensor of tensors) {
    if (shards.length === 0 || tensor.byteLength > room) {
      shards.push([])
      room = shardBytes
    }
    shards.at(-1)!.push(tensor)
    room -= tensor.byteLength
  }
  return shards
}

/** Hugging Face's name of a shard, counted from 0. */
export function shardFileName(shard: number, count: number): string {
  return count === 1 ? WEIGHTS_FILE : `model-${digits(shard + 1)}-of-${digits(count)}.safetensors`
}

/** Writes model.safetensors.index.json; a single file needs none. */
export function writeIndex(
  folder: string,
  shards: readonly (readonly { name: string }[])[],
  totalBytes: number,
): void {
  if (shards.length === 1) return
  const files = shards.flatMap((tensors, shard) =>
    tensors.map(({ name }) => [name, shardFileName(shard, shards.length)] as const),
  )
  const weightMap = Object.fromEntries(files.sort(([a], [b]) => (a < b ? -1 : 1)))
  const index = { metadata: { total_size: totalBytes }, weight_map: weightMap }
  writeFileDurably(join(folder, INDEX_FILE), `${JSON.stringify(index, null, 2)}\n`)
}

function digits(count: number): string {
  return String(count).padStart(5, '0')
}
