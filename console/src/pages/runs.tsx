import { useEffect, useMemo, useState } from 'preact/hooks'
import { followJob, remove } from '../api.ts'
import { number, time } from '../format.ts'
import { t } from '../i18n.ts'
import { Confirm } from '../parts/confirm.tsx'
import { connected } from '../parts/connection.ts'
import { Curve } from '../parts/curve.tsx'
import { Bar, Problem } from '../parts/form.tsx'
import { emptyHistory, extend, type History, seriesOf } from '../parts/run-curve.ts'
import { Scroll } from '../parts/scroll.tsx'
import { isActive, Status } from '../parts/status.tsx'
import { useResource } from '../parts/use-resource.ts'
import type { List, Run } from '../types.ts'

const REFRESH_MS = 3_000

/** All runs, and the curves of those that are chosen, one over the other. */
export function RunsPage() {
  const runs = useResource<List<Run>>('/v1/training/runs?limit=100', REFRESH_MS)
  const [chosen, setChosen] = useState<readonly string[]>([])
  const [deleting, setDeleting] = useState<string>()
  const [error, setError] = useState<Error>()
  const toggle = (id: string) =>
    setChosen(chosen.includes(id) ? chosen.filter((one) => one !== id) : [...chosen, id])
  const confirmed = async () => {
    const id = deleting!
    setDeleting(undefined)
    try {
      await remove(`/v1/training/runs/${id}`)
      setChosen(chosen.filter((one) => one !== id))
      setError(undefined)
    } catch (problem) {
      setError(problem as Error)
    }
    runs.refresh()
  }
  return (
    <>
      <h1>{t('runs')}</h1>
      <Problem error={error ?? runs.error} />
      {chosen.length > 0 && <Comparison ids={chosen} />}
      {runs.value?.data.length === 0 && <p class="muted">{t('none')}</p>}
      {(runs.value?.data.length ?? 0) > 0 && (
        <RunsTable
          runs={runs.value!.data}
          isChosen={(id) => chosen.includes(id)}
          onToggle={toggle}
          onRemove={setDeleting}
        />
      )}
      {deleting && (
        <Confirm
          question={`${deleting}: ${t('removeAsk')}`}
          action={t('remove')}
          onYes={confirmed}
          onNo={() => setDeleting(undefined)}
        />
      )}
    </>
  )
}

interface RunsTableProps {
  runs: readonly Run[]
  isChosen(id: string): boolean
  onToggle(id: string): void
  onRemove(id: string): void
}

function RunsTable({ runs, isChosen, onToggle, onRemove }: RunsTableProps) {
  const columns = [
    'choose',
    'run',
    'model',
    'dataset',
    'status',
    'progress',
    'loss',
    'created',
    'remove',
  ] as const
  return (
    <Scroll label={t('runs')}>
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th scope="col" key={column}>
                {t(column)}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {runs.map((run) => (
            <tr key={run.id}>
              <td>
                <input
                  type="checkbox"
                  aria-label={`${t('compare')}: ${run.id}`}
                  checked={isChosen(run.id)}
                  onChange={() => onToggle(run.id)}
                />
              </td>
              <td>
                <a href={`#/runs/${run.id}`}>{run.id}</a>
              </td>
              <td>{run.model}</td>
              <td>{run.datasets.join(', ')}</td>
              <td>
                <Status status={run.status} />
              </td>
              <td>
                {run.progress && (
                  <Bar fraction={run.progress.step / Math.max(1, run.progress.total_steps)} label={run.id} />
                )}
              </td>
              <td>{number(run.metrics?.train_loss ?? run.progress?.loss)}</td>
              <td>{time(run.created_at)}</td>
              <td>
                <button
                  type="button"
                  class="quiet"
                  disabled={isActive(run.status)}
                  aria-label={`${t('remove')}: ${run.id}`}
                  onClick={() => onRemove(run.id)}
                >
                  {t('remove')}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  )
}

/** The curves of runs, one over the other. */
function Comparison({ ids }: { ids: readonly string[] }) {
  const [histories, setHistories] = useState<Record<string, History>>({})
  useEffect(() => {
    const stops = ids.map((id) =>
      followJob(`/v1/training/runs/${id}/events`, {
        event: (event) =>
          setHistories((last) => ({ ...last, [id]: extend(last[id] ?? emptyHistory(), event) })),
        connected: (up) => {
          connected.value = up
        },
      }),
    )
    return () => {
      for (const stop of stops) stop()
    }
  }, [ids.join()])
  const series = useMemo(
    () =>
      ids.flatMap((id, index) => {
        const names = { loss: id, smoothed: `${id}, ${t('smoothed')}`, evaluation: `${id}, ${t('evalLoss')}` }
        return seriesOf(histories[id] ?? emptyHistory(), names, index).map((line) => ({
          ...line,
          color: index,
        }))
      }),
    [histories, ids.join()],
  )
  return (
    <section class="card" aria-label={t('compare')}>
      <h2>{t('compare')}</h2>
      <Curve series={series} label={`${t('loss')}: ${ids.join(', ')}`} />
    </section>
  )
}
