import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'

export interface Series {
  label: string
  /** [step, value], by step. */
  points: readonly (readonly [number, number])[]
  faint?: boolean
  dashed?: boolean
  /** Which of COLORS; the same number is the same colour. */
  color: number
}

const COLORS = ['#c2541f', '#2f6f9f', '#3c8a4e', '#8a4bb0', '#a07a12', '#b03060', '#4a6a6a', '#666666']
const HEIGHT = 280

/** Curves over steps. The table beside it, for those who cannot see it, is the caller's. */
export function Curve({ series, label }: { series: readonly Series[]; label: string }) {
  const host = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const element = host.current!
    const shown = series.filter(({ points }) => points.length > 0)
    const steps = [...new Set(shown.flatMap(({ points }) => points.map(([step]) => step)))].sort(
      (a, b) => a - b,
    )
    const columns = shown.map(({ points }) => {
      const values = new Map(points)
      return steps.map((step) => values.get(step) ?? null)
    })
    const text = getComputedStyle(element).color
    const axis = {
      stroke: text,
      grid: { stroke: 'rgba(128,128,128,0.25)' },
      ticks: { stroke: 'rgba(128,128,128,0.4)' },
    }
    const plot = new uPlot(
      {
        width: element.clientWidth || 600,
        height: HEIGHT,
        scales: { x: { time: false } },
        axes: [axis, axis],
        series: [
          { label: 'step' },
          ...shown.map(({ label: name, faint, dashed, color }) => ({
            label: name,
            stroke: COLORS[color % COLORS.length]! + (faint ? '66' : ''),
            width: faint ? 1 : 2,
            dash: dashed ? [6, 4] : undefined,
            spanGaps: true,
            points: { show: steps.length < 40 },
          })),
        ],
      },
      [steps, ...columns] as uPlot.AlignedData,
      element,
    )
    const resized = new ResizeObserver(() =>
      plot.setSize({ width: element.clientWidth || 600, height: HEIGHT }),
    )
    resized.observe(element)
    return () => {
      resized.disconnect()
      plot.destroy()
    }
  }, [series])
  return <div class="curve" ref={host} role="img" aria-label={label} />
}
