import type { EvaluationResult } from '../../routes/schemas/evaluations.ts'

/** The models side by side as a Markdown table, one row for each metric. */
export function comparisonTable(results: readonly EvaluationResult[]): string {
  const names = [...new Set(results.flatMap(({ metrics }) => Object.keys(metrics)))]
  const cell = (value: number | undefined) =>
    value === undefined ? '' : Number.isInteger(value) ? String(value) : value.toFixed(4)
  const rows = names.map((name) => [name, ...results.map(({ metrics }) => cell(metrics[name]))])
  const head = ['', ...results.map(({ model }) => model)]
  const line = (cells: readonly string[]) =>
    `| ${cells.map((text) => text.replaceAll('|', '\\|')).join(' | ')} |`
  return `${[line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')}\n`
}
