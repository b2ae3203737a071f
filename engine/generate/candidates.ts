/*
 * Heaps of token ids, ordered by a score per id and, among equal scores, by the lower id. They live in typed arrays that
 * the caller owns, so that choosing a few of 150,000 tokens neither sorts nor allocates.
 */

/** Whether candidate a ranks before candidate b. */
function ranksBefore(scores: ArrayLike<number>, a: number, b: number): boolean {
  return scores[a]! > scores[b]! || (scores[a] === scores[b] && a < b)
}

/**
 * Writes the ids of the k largest scores into the first places of `ids`, in no particular order, and returns how many
 * there are: k, or fewer where there are not so many scores. One pass with a heap whose root is the weakest.
 */
export function selectLargest(scores: ArrayLike<number>, k: number, ids: Int32Array): number {
  const count = Math.min(k, scores.length)
  if (count === 0) return 0
  for (let id = 0; id < count; id++) ids[id] = id
  for (let at = (count >> 1) - 1; at >= 0; at--) sinkWeakest(scores, ids, at, count)
  for (let id = count; id < scores.length; id++) {
    if (scores[id]! <= scores[ids[0]!]!) continue
    ids[0] = id
    sinkWeakest(scores, ids, 0, count)
  }
  return count
}

/** Restores a heap with the weakest on top after ids[at] changed. */
function sinkWeakest(scores: ArrayLike<number>, ids: Int32Array, at: number, count: number): void {
  const id = ids[at]!
  let parent = at
  for (let child = 2 * parent + 1; child < count; child = 2 * parent + 1) {
    if (child + 1 < count && ranksBefore(scores, ids[child]!, ids[child + 1]!)) child++
    if (ranksBefore(scores, ids[child]!, id)) break
    ids[parent] = ids[child]!
    parent = child
  }
  ids[parent] = id
}

/** Makes a heap with the strongest on top of the first `count` ids. */
export function heapify(scores: ArrayLike<number>, ids: Int32Array, count: number): void {
  for (let at = (count >> 1) - 1; at >= 0; at--) sinkStrongest(scores, ids, at, count)
}

/** Moves the strongest of the heap's `count` ids to place `count - 1`, behind the heap that is left, and returns it. */
export function popStrongest(scores: ArrayLike<number>, ids: Int32Array, count: number): number {
  const strongest = ids[0]!
  ids[0] = ids[count - 1]!
  ids[count - 1] = strongest
  sinkStrongest(scores, ids, 0, count - 1)
  return strongest
}

/** Restores a heap with the strongest on top after ids[at] changed. */
function sinkStrongest(scores: ArrayLike<number>, ids: Int32Array, at: number, count: number): void {
  if (at >= count) return
  const id = ids[at]!
  let parent = at
  for (let child = 2 * parent + 1; child < count; child = 2 * parent + 1) {
    if (child + 1 < count && ranksBefore(scores, ids[child + 1]!, ids[child]!)) child++
    if (ranksBefore(scores, id, ids[child]!)) break
    ids[parent] = ids[child]!
    parent = child
  }
  ids[parent] = id
}
