/** Sums over positions of how two models predict the same next tokens. */
export interface DivergenceSums {
  positions: number
  /** Σ −log p(label), of the reference and of the other model, in nats. */
  referenceLoss: number
  otherLoss: number
  /** Σ KL(reference ‖ other), in nats. */
  divergence: number
  /** Positions at which both have the same most likely token. */
  sameTop: number
}

export function emptySums(): DivergenceSums {
  return { positions: 0, referenceLoss: 0, otherLoss: 0, divergence: 0, sameTop: 0 }
}

/**
 * Adds the rows of two logit matrices [labels.length, vocabulary]:
 *   KL(P ‖ Q) = Σ_v P_v·(log P_v − log Q_v), with P and Q the softmax of a row each.
 */
export function addLogits(
  sums: DivergenceSums,
  reference: Float32Array,
  other: Float32Array,
  labels: ArrayLike<number>,
  vocabulary: number,
): void {
  for (let row = 0; row < labels.length; row++) {
    const p = reference.subarray(row * vocabulary, (row + 1) * vocabulary)
    const q = other.subarray(row * vocabulary, (row + 1) * vocabulary)
    const [a, b] = [normalizer(p), normalizer(q)]
    let divergence = 0
    for (let v = 0; v < vocabulary; v++) {
      const logP = p[v]! - a.logSum
      if (logP > -40) divergence += Math.exp(logP) * (logP - (q[v]! - b.logSum))
    }
    const label = labels[row]!
    sums.positions++
    sums.referenceLoss += a.logSum - p[label]!
    sums.otherLoss += b.logSum - q[label]!
    sums.divergence += divergence
    if (a.top === b.top) sums.sameTop++
  }
}

/** log Σ exp of a row, and the place of its maximum. */
function normalizer(row: Float32Array): { logSum: number; top: number } {
  let top = 0
  for (let v = 1; v < row.length; v++) if (row[v]! > row[top]!) top = v
  const highest = row[top]!
  let sum = 0
  for (const value of row) sum += Math.exp(value - highest)
  return { logSum: highest + Math.log(sum), top }
}
