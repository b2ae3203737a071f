/**
 * LLaMA-Factory's smoothing (extras/ploting.py): s_i = w s_{i-1} + (1 - w) x_i from s_0 = x_0, where the weight grows with
 * the number of points n: w = 1.8 (1 / (1 + e^(-0.05 n)) - 0.5).
 */
export function smooth(values: readonly number[]): number[] {
  const weight = 1.8 * (1 / (1 + Math.exp(-0.05 * values.length)) - 0.5)
  let last = values[0] ?? 0
  return values.map((value) => {
    last = weight * last + (1 - weight) * value
    return last
  })
}

/** Fewer points than this say nothing about a trend. */
const FEWEST_POINTS = 20
/** A gain below both of these shares, of what the curve has fallen and of its height, is none. */
const SHARE_OF_FALL = 0.02
const SHARE_OF_HEIGHT = 0.005

/**
 * Whether a loss curve has flattened: the mean of the last quarter of its smoothed form lies less than 2 % of the curve's
 * whole fall, or half a percent of its height, below the mean of the quarter before. A curve that rises again counts.
 */
export function isFlat(losses: readonly number[]): boolean {
  if (losses.length < FEWEST_POINTS) return false
  const smoothed = smooth(losses)
  const quarter = Math.floor(losses.length / 4)
  const before = mean(smoothed.slice(-2 * quarter, -quarter))
  const gain = before - mean(smoothed.slice(-quarter))
  const fall = Math.max(...smoothed) - Math.min(...smoothed)
  return gain < Math.max(SHARE_OF_FALL * fall, SHARE_OF_HEIGHT * Math.abs(before))
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length
}
