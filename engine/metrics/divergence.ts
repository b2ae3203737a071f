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

/** Where logits [rows, stride] belong: rows from `row` on, and of each row its first `count` are tokens from `token` on. */
export interface LogitsPlace {
  row: number
  token: number
  count: number
  stride: number
}

/**
 * Compares the next-token distributions P and Q of two models whose logits p and q come in parts of the vocabulary, in any
 * order. Of each row it keeps, relative to the largest logit so far, Z_P = Σ exp p, Z_Q and X = Σ exp(p)·(p − q):
 *   KL(P ‖ Q) = Σ_v P_v·(log P_v − log Q_v) = X / Z_P − log Z_P + log Z_Q.
 */
export class RunningDivergence {
  readonly #labels: ArrayLike<number>
  readonly #reference: RunningSoftmax
  readonly #other: RunningSoftmax
  readonly #cross: Float64Array

  /** @param labels the token that follows at each row. */
  constructor(labels: ArrayLike<number>) {
    this.#labels = labels
    this.#reference = new RunningSoftmax(labels.length)
    this.#other = new RunningSoftmax(labels.length)
    this.#cross = new Float64Array(labels.length)
  }

  add(reference: Float32Array, other: Float32Array, { row, token, count, stride }: LogitsPlace): void {
    for (let i = 0; i < reference.length / stride; i++) {
      const p = reference.subarray(i * stride, i * stride + count)
      const q = other.subarray(i * stride, i * stride + count)
      const label = this.#labels[row + i]! - token
      this.#cross[row + i]! *= this.#reference.add(row + i, p, token, label)
      this.#other.add(row + i, q, token, label)
      const highest = this.#reference.highest[row + i]!
      let cross = 0
      for (let v = 0; v < count; v++) {
        const below = p[v]! - highest
        if (below > -40) cross += Math.exp(below) * (p[v]! - q[v]!)
      }
      this.#cross[row + i]! += cross
    }
  }

  sums(): DivergenceSums {
    const sums = { positions: 0, referenceLoss: 0, otherLoss: 0, divergence: 0, sameTop: 0 }
    for (let row = 0; row < this.#labels.length; row++) {
      const [a, b] = [this.#reference.logSum(row), this.#other.logSum(row)]
      sums.positions++
      sums.referenceLoss += a - this.#reference.label[row]!
      sums.otherLoss += b - this.#other.label[row]!
      sums.divergence += this.#cross[row]! / this.#reference.sum[row]! - a + b
      if (this.#reference.top[row] === this.#other.top[row]) sums.sameTop++
    }
    return sums
  }
}

/** Of each row: the largest logit and its token, Σ exp(logit − largest), and the label's logit. */
class RunningSoftmax {
  readonly highest: Float64Array
  readonly sum: Float64Array
  readonly label: Float64Array
  readonly top: Int32Array

  constructor(rows: number) {
    this.highest = new Float64Array(rows).fill(Number.NEGATIVE_INFINITY)
    this.sum = new Float64Array(rows)
    this.label = new Float64Array(rows)
    this.top = new Int32Array(rows)
  }

  /** Takes further logits of a row and returns by what sums relative to the largest one shrink. */
  add(row: number, logits: Float32Array, token: number, label: number): number {
    if (label >= 0 && label < logits.length) this.label[row] = logits[label]!
    const before = this.highest[row]!
    let highest = before
    for (let v = 0; v < logits.length; v++) {
      if (logits[v]! <= highest) continue
      highest = logits[v]!
      this.top[row] = token + v
    }
    const shrink = before === highest ? 1 : Math.exp(before - highest)
    let sum = 0
    for (const logit of logits) sum += Math.exp(logit - highest)
    this.sum[row] = this.sum[row]! * shrink + sum
    this.highest[row] = highest
    return shrink
  }

  logSum(row: number): number {
    return this.highest[row]! + Math.log(this.sum[row]!)
  }
}
