import { createRequire } from 'node:module'
import type * as Renderer from '@resvg/resvg-js'
import { smooth } from './curve.ts'

/** Points of a curve: x are steps. */
export interface Curve {
  steps: readonly number[]
  values: readonly number[]
}

const WIDTH = 960
const HEIGHT = 640
const MARGIN = { left: 110, right: 32, top: 64, bottom: 80 }
const BLUE = '#1f77b4'
const ORANGE = '#ff7f0e'
const INK = '#333333'
const GRID = '#e6e6e6'

/**
 * Draws a curve and its smoothed form, and the evaluations beside it where there are any.
 *
 * @returns a PNG; undefined when there is no point to draw.
 */
export function plotCurve(
  curve: Curve,
  options: { title: string; label: string; evaluation?: Curve },
): Uint8Array | undefined {
  const shown = pointsOf(curve)
  if (shown.length === 0) return undefined
  const require = createRequire(import.meta.url)
  const font = require.resolve('dejavu-fonts-ttf/ttf/DejaVuSans.ttf')
  // Its binary is loaded by who draws, not by everybody who reads a run.
  const { Resvg } = require('@resvg/resvg-js') as typeof Renderer
  const evaluation = options.evaluation ? pointsOf(options.evaluation) : []
  const resvg = new Resvg(curveSvg(shown, evaluation, options), {
    background: 'white',
    font: { fontFiles: [font], loadSystemFonts: false, defaultFontFamily: 'DejaVu Sans' },
  })
  return resvg.render().asPng()
}

function pointsOf({ steps, values }: Curve): Point[] {
  return values.flatMap((y, i) => (Number.isFinite(y) ? [{ x: steps[i]!, y }] : []))
}

interface Point {
  x: number
  y: number
}

function curveSvg(
  points: readonly Point[],
  evaluation: readonly Point[],
  { title, label }: { title: string; label: string },
): string {
  const smoothed = smooth(points.map(({ y }) => y)).map((y, i) => ({ x: points[i]!.x, y }))
  const all = [...points, ...evaluation]
  const x = axis(all, (point) => point.x, MARGIN.left, WIDTH - MARGIN.right, 1)
  const y = axis(all, (point) => point.y, HEIGHT - MARGIN.bottom, MARGIN.top, 0)
  const middle = (MARGIN.top + HEIGHT - MARGIN.bottom) / 2
  const center = (MARGIN.left + WIDTH - MARGIN.right) / 2
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${HEIGHT}" font-family="DejaVu Sans">
${text(center, 38, title, 'text-anchor="middle" font-size="20"')}
${x.ticks.map((value) => xTick(x.place(value), x.format(value))).join('\n')}
${y.ticks.map((value) => yTick(y.place(value), y.format(value))).join('\n')}
${frame()}
${text(center, HEIGHT - 24, 'step', 'text-anchor="middle" font-size="17"')}
${text(26, middle, label, `text-anchor="middle" font-size="17" transform="rotate(-90 26 ${middle})"`)}
${line(points, x, y, { colour: BLUE, alpha: 0.4 })}
${line(smoothed, x, y, { colour: BLUE, alpha: 1 })}
${evaluation.length > 0 ? line(evaluation, x, y, { colour: ORANGE, alpha: 1 }) : ''}
${legend(evaluation.length > 0)}
</svg>`
}

interface Axis {
  ticks: number[]
  place(value: number): number
  format(value: number): string
}

/**
 * A linear scale from the points' range, with a little room, onto pixels, and round tick values inside it that are at
 * least `minSpacing` apart.
 */
function axis(
  points: readonly Point[],
  pick: (point: Point) => number,
  from: number,
  to: number,
  minSpacing: number,
): Axis {
  let low = Infinity
  let high = -Infinity
  for (const point of points) {
    low = Math.min(low, pick(point))
    high = Math.max(high, pick(point))
  }
  const room = high > low ? 0.04 * (high - low) : Math.max(0.1 * Math.abs(low), minSpacing, 1e-6)
  low -= room
  high += room
  const spacing = Math.max(minSpacing, roundSpacing((high - low) / 7))
  const first = Math.ceil(low / spacing)
  const count = Math.floor(high / spacing) - first + 1
  const digits = Math.max(0, -Math.floor(Math.log10(spacing) + 1e-9))
  return {
    ticks: Array.from({ length: count }, (_, i) => (first + i) * spacing),
    place: (value) => from + ((value - low) / (high - low)) * (to - from),
    format: (value) => (digits > 4 || high >= 1e6 ? value.toExponential(2) : value.toFixed(digits)),
  }
}

/** The smallest of 1, 2, 5 times a power of ten that is at least `wanted`. */
function roundSpacing(wanted: number): number {
  const power = 10 ** Math.floor(Math.log10(wanted))
  return power * ([1, 2, 5].find((factor) => factor * power >= wanted * 0.999) ?? 10)
}

function xTick(x: number, label: string): string {
  const bottom = HEIGHT - MARGIN.bottom
  return `<path d="M${n(x)} ${MARGIN.top}V${bottom}" stroke="${GRID}"/><path d="M${n(x)} ${bottom}v6" stroke="${INK}"/>
${text(x, bottom + 24, label, 'text-anchor="middle" font-size="14"')}`
}

function yTick(y: number, label: string): string {
  const right = WIDTH - MARGIN.right
  return `<path d="M${MARGIN.left} ${n(y)}H${right}" stroke="${GRID}"/><path d="M${MARGIN.left} ${n(y)}h-6" stroke="${INK}"/>
${text(MARGIN.left - 12, y + 5, label, 'text-anchor="end" font-size="14"')}`
}

function frame(): string {
  const [width, height] = [WIDTH - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom]
  const place = `x="${MARGIN.left}" y="${MARGIN.top}" width="${width}" height="${height}"`
  return `<rect ${place} fill="none" stroke="${INK}"/>`
}

interface Pen {
  colour: string
  alpha: number
}

function line(points: readonly Point[], x: Axis, y: Axis, { colour, alpha }: Pen): string {
  const [only] = points
  if (points.length === 1 && only) {
    return `<circle cx="${n(x.place(only.x))}" cy="${n(y.place(only.y))}" r="5" fill="${colour}" opacity="${alpha}"/>`
  }
  const path = points.map((point) => `${n(x.place(point.x))},${n(y.place(point.y))}`).join(' ')
  const stroke = `stroke="${colour}" stroke-opacity="${alpha}" stroke-width="2.5" stroke-linejoin="round"`
  return `<polyline points="${path}" fill="none" ${stroke}/>`
}

function legend(withEvaluation: boolean): string {
  const left = WIDTH - MARGIN.right - 166
  const top = MARGIN.top + 14
  const entry = (row: number, label: string, { colour, alpha }: Pen) => {
    const y = top + 24 + 26 * row
    const stroke = `stroke="${colour}" stroke-opacity="${alpha}" stroke-width="3"`
    return `<path d="M${left + 14} ${y}h34" ${stroke}/>${text(left + 60, y + 5, label, 'font-size="15"')}`
  }
  const height = withEvaluation ? 100 : 74
  const frame = 'rx="5" fill="white" fill-opacity="0.85" stroke="#cccccc"'
  return `<rect x="${left}" y="${top}" width="152" height="${height}" ${frame}/>
${entry(0, 'original', { colour: BLUE, alpha: 0.4 })}
${entry(1, 'smoothed', { colour: BLUE, alpha: 1 })}
${withEvaluation ? entry(2, 'evaluation', { colour: ORANGE, alpha: 1 }) : ''}`
}

function text(x: number, y: number, content: string, attributes: string): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')
  return `<text x="${n(x)}" y="${n(y)}" fill="${INK}" ${attributes}>${escaped}</text>`
}

function n(pixels: number): string {
  return pixels.toFixed(2)
}
