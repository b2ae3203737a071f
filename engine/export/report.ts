import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { EngineError } from '../errors.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import type { Comparison } from './compare.ts'

const REPORT_FILE = 'report.json'
const REPORT_PAGE = 'report.md'

/** What a quantized export is made of and what it lost. */
export interface ExportReport {
  model: string
  format: string
  bits: number
  /** File type of a GGUF; null elsewhere. */
  gguf_type: string | null
  method: string
  group_size: number | null
  sym: boolean | null
  desc_act: boolean | null
  damp_percent: number | null
  seed: number
  calibration: { dataset: string; samples: number; tokens_each: number } | null
  /** Bytes of the weights, before and after. */
  size: { before: number; after: number }
  /** The text that was measured on, and how much of it. */
  text: { dataset: string; tokens: number }
  perplexity: { before: number; after: number }
  mean_kld: number
  /** Part of the positions with the same most likely token. */
  same_top_token: number
  worst_matrices: { name: string; relative_error: number }[]
  layer_drift: { layer: number; relative_error: number }[]
  seconds: number
  /** Most memory that the process held, in bytes. */
  peak_memory: number
  /** The gate of the request, and whether the export passed it. */
  max_kld: number | null
  passed: boolean
}

const SHOWN_MATRICES = 8

/** The measured part of a report. */
export function measured(comparison: Comparison) {
  const { perplexity, meanKld, sameTop, matrices, layers } = comparison
  return {
    perplexity,
    mean_kld: meanKld,
    same_top_token: sameTop,
    worst_matrices: matrices
      .slice(0, SHOWN_MATRICES)
      .map(({ name, error }) => ({ name, relative_error: error })),
    layer_drift: layers.map(({ layer, error }) => ({ layer, relative_error: error })),
  }
}

/** Writes report.json and report.md into a folder. */
export function writeReport(folder: string, report: ExportReport): void {
  writeFileDurably(join(folder, REPORT_FILE), `${JSON.stringify(report, null, 2)}\n`)
  writeFileDurably(join(folder, REPORT_PAGE), reportPage(report))
}

/** The report in an export's folder, where it has one. */
export function readReport(folder: string): ExportReport | undefined {
  const path = join(folder, REPORT_FILE)
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as ExportReport) : undefined
}

/** The error of an export whose divergence is above the request's gate. */
export function gateError({ mean_kld, max_kld }: ExportReport): EngineError {
  return new EngineError(
    'invalid',
    'kld_too_high',
    `The quantized model's mean KL divergence is ${mean_kld.toPrecision(4)}, above max_kld ${max_kld}. The export was ` +
      'not kept; its report says which parts lost most. Use more bits, smaller groups, GPTQ or a higher max_kld.',
    { param: 'max_kld' },
  )
}

function reportPage(report: ExportReport): string {
  const { size, perplexity, calibration } = report
  const rows: [string, string][] = [
    ['Format', [report.format, report.gguf_type, `${report.bits} bits`].filter(Boolean).join(', ')],
    ['Method', methodLine(report)],
    [
      'Calibration',
      calibration
        ? `${calibration.samples} × ${calibration.tokens_each} tokens of ${calibration.dataset}, seed ${report.seed}`
        : 'none',
    ],
    [
      'Size',
      `${megabytes(size.before)} → ${megabytes(size.after)} (${(size.before / size.after).toFixed(2)} ×)`,
    ],
    ['Text', `${report.text.dataset}, ${report.text.tokens} tokens`],
    ['Perplexity', `${perplexity.before.toFixed(3)} → ${perplexity.after.toFixed(3)}`],
    ['Mean KL divergence', `${report.mean_kld.toFixed(5)} nats${gateLine(report)}`],
    ['Same top token', `${(100 * report.same_top_token).toFixed(1)} %`],
    ['Time', `${report.seconds.toFixed(1)} s`],
    ['Peak memory', megabytes(report.peak_memory)],
  ]
  const matrices = report.worst_matrices.map(
    ({ name, relative_error }) => `| ${name} | ${(100 * relative_error).toFixed(2)} % |`,
  )
  const layers = report.layer_drift.map(
    ({ layer, relative_error }) => `| ${layer} | ${(100 * relative_error).toFixed(2)} % |`,
  )
  return [
    `# ${report.model}: what ${report.bits} bits cost`,
    '',
    '| | |',
    '| --- | --- |',
    ...rows.map(([name, value]) => `| ${name} | ${value} |`),
    '',
    'Matrices that changed most:',
    '',
    '| Tensor | Relative error |',
    '| --- | --- |',
    ...matrices,
    '',
    'Hidden states after each layer:',
    '',
    '| Layer | Relative difference |',
    '| --- | --- |',
    ...layers,
    '',
  ].join('\n')
}

function methodLine({ method, group_size, sym, desc_act, damp_percent }: ExportReport): string {
  const parts = [method.toUpperCase()]
  if (group_size !== null) parts.push(`groups of ${group_size}`)
  if (sym !== null) parts.push(sym ? 'symmetric' : 'asymmetric')
  if (desc_act) parts.push('act-order')
  if (damp_percent !== null) parts.push(`damping ${damp_percent}`)
  return parts.join(', ')
}

function gateLine({ max_kld, passed }: ExportReport): string {
  if (max_kld === null) return ''
  return passed ? `, within max_kld ${max_kld}` : `, above max_kld ${max_kld}: refused`
}

function megabytes(bytes: number): string {
  return `${(bytes / 1e6).toFixed(1)} MB`
}
