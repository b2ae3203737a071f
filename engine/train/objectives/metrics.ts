/** Sums of what was measured and how often, by transformers' name of the metric; plain data, so a checkpoint can hold it. */
export type Metrics = Record<string, { sum: number; count: number }>

/** One metric's sum over what was measured. */
export function tally(values: ArrayLike<number>): { sum: number; count: number } {
  let sum = 0
  for (let i = 0; i < values.length; i++) sum += values[i]!
  return { sum, count: values.length }
}

/** Adds `part` to `total` in place. */
export function addMetrics(total: Metrics, part: Metrics = {}): void {
  for (const [name, { sum, count }] of Object.entries(part)) {
    const known = total[name]
    total[name] = { sum: (known?.sum ?? 0) + sum, count: (known?.count ?? 0) + count }
  }
}

/** The mean of each metric. Where answers of both kinds were rewarded, their margin is the difference of the two means. */
export function meansOf(metrics: Metrics): Record<string, number> {
  const measured = Object.entries(metrics).filter(([, { count }]) => count > 0)
  const means = Object.fromEntries(measured.map(([name, { sum, count }]) => [name, sum / count]))
  const { 'rewards/chosen': chosen, 'rewards/rejected': rejected } = means
  if (chosen === undefined || rejected === undefined) return means
  return { ...means, 'rewards/margins': chosen - rejected }
}
