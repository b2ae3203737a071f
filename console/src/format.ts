/** '3m 07s', for people. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  if (whole < 60) return `${whole}s`
  const minutes = Math.floor(whole / 60)
  const two = (value: number) => String(value).padStart(2, '0')
  return minutes < 60
    ? `${minutes}m ${two(whole % 60)}s`
    : `${Math.floor(minutes / 60)}h ${two(minutes % 60)}m`
}

export function bytes(count: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB']
  let value = count
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return `${unit === 0 || value >= 10 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`
}

export const count = (value: number) => value.toLocaleString('en-US')

/** A loss, a rate or a metric in four significant digits. */
export function number(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  if (Number.isInteger(value)) return count(value)
  return Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(2) : value.toPrecision(4)
}

export const time = (unix: number) => new Date(unix * 1000).toLocaleString()

/**
 * LLaMA-Factory's smoothed curve: s₀ = x₀, sᵢ = w·sᵢ₋₁ + (1 - w)·xᵢ with w = 1.8·(1 / (1 + exp(-0.05·n)) - 0.5), n points.
 */
export function smooth(values: readonly number[]): number[] {
  const weight = 1.8 * (1 / (1 + Math.exp(-0.05 * values.length)) - 0.5)
  let last = values[0] ?? 0
  return values.map((value) => {
    last = last * weight + (1 - weight) * value
    return last
  })
}
