/**
 * The ids of the k largest weights by rising id; among equal weights the lower ids count as larger. One pass with a
 * heap of k entries whose root is the weakest, so a vocabulary of 150,000 costs little more than a scan when k is small.
 */
export function topCandidates(weights: Float64Array, k: number): number[] {
  const heap: number[] = []
  for (let id = 0; id < weights.length; id++) {
    if (heap.length < k) {
      heap.push(id)
      siftUp(weights, heap)
    } else if (weights[id]! > weights[heap[0]!]!) {
      heap[0] = id
      siftDown(weights, heap)
    }
  }
  return heap.sort((a, b) => a - b)
}

/** Whether candidate a ranks below candidate b. */
function isWeaker(weights: Float64Array, a: number, b: number): boolean {
  return weights[a]! < weights[b]! || (weights[a] === weights[b] && a > b)
}

function siftUp(weights: Float64Array, heap: number[]): void {
  let child = heap.length - 1
  while (child > 0) {
    const parent = (child - 1) >> 1
    if (!isWeaker(weights, heap[child]!, heap[parent]!)) return
    swap(heap, child, parent)
    child = parent
  }
}

function siftDown(weights: Float64Array, heap: number[]): void {
  let parent = 0
  for (;;) {
    const left = 2 * parent + 1
    if (left >= heap.length) return
    const right = left + 1
    const weaker = right < heap.length && isWeaker(weights, heap[right]!, heap[left]!) ? right : left
    if (!isWeaker(weights, heap[weaker]!, heap[parent]!)) return
    swap(heap, weaker, parent)
    parent = weaker
  }
}

function swap(heap: number[], a: number, b: number): void {
  const kept = heap[a]!
  heap[a] = heap[b]!
  heap[b] = kept
}
