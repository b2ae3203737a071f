import { useEffect, useMemo, useState } from 'preact/hooks'
import { followJob, get, getText, post } from '../api.ts'
import { bytes, duration, number } from '../format.ts'
import { t } from '../i18n.ts'
import { connected } from '../parts/connection.ts'
import { Curve } from '../parts/curve.tsx'
import { Bar, Copyable, Problem, SelectField } from '../parts/form.tsx'
import { emptyHistory, extend, seriesOf } from '../parts/run-curve.ts'
import { Scroll } from '../parts/scroll.tsx'
import { isActive, Status } from '../parts/status.tsx'
import { useJob } from '../parts/use-job.ts'
import { useResource } from '../parts/use-resource.ts'
import type { Checkpoint, Dataset, Evaluation, List, Run, TaskJob } from '../types.ts'

const LOG_TAIL_BYTES = 4_000

/** One run: live while it works, and what can be done with it. Closing the page changes nothing. */
export function RunPage({ id }: { id: string }) {
  const path = `/v1/training/runs/${encodeURIComponent(id)}`
  const checkpoints = useResource<List<Checkpoint>>(`${path}/checkpoints`)
  const { run, history, log, error, act } = useRun(path, checkpoints.refresh)
  const loss = useMemo(
    () => seriesOf(history, { loss: t('loss'), smoothed: t('smoothed'), evaluation: t('evalLoss') }),
    [history],
  )
  const rate = useMemo(() => [{ label: t('rate'), points: history.rate, color: 2 }], [history])
  if (!run) return <Problem error={error} />
  return (
    <>
      <p>
        <a href="#/runs">← {t('allRuns')}</a>
      </p>
      <h1>
        {run.id} <Status status={run.status} />
      </h1>
      <p class="muted">
        {run.model} · {run.datasets.join(', ')} · {run.stage} · {run.finetuning_type} · {run.output_dir}
      </p>
      <Problem error={error ?? (run.error ? new Error(run.error.message) : undefined)} />
      <section class="card" aria-label={t('progress')}>
        <Progress run={run} />
        <Actions run={run} act={act} />
        <Curve series={loss} label={t('loss')} />
        <details>
          <summary>{t('rate')}</summary>
          <Curve series={rate} label={t('rate')} />
        </details>
      </section>
      <section class="card" aria-label={t('checkpoints')}>
        <h2>{t('checkpoints')}</h2>
        <CheckpointTable checkpoints={checkpoints.value?.data ?? []} />
      </section>
      {run.status === 'succeeded' && <Evaluate run={run} />}
      <Copyable label={t('log')} text={log} />
    </>
  )
}

type Action = 'cancel' | 'resume'

/** A run as its events tell of it, its curve and the end of its log; `act` cancels it or takes it up again. */
function useRun(path: string, onCheckpoint: () => void) {
  const [run, setRun] = useState<Run>()
  const [history, setHistory] = useState(emptyHistory)
  const [log, setLog] = useState('')
  const [error, setError] = useState<Error>()
  const [round, setRound] = useState(0)

  useEffect(() => {
    const refresh = () => {
      get<Run>(path).then(setRun, setError)
      getText(`${path}/log?tail=${LOG_TAIL_BYTES}`).then(setLog, () => {})
    }
    refresh()
    return followJob(`${path}/events`, {
      event: (event) => {
        setHistory((last) => extend(last, event))
        if (event.type === 'progress') setRun((last) => withProgress(last, event.data))
        else refresh()
        if (event.type === 'checkpoint') onCheckpoint()
      },
      connected: (up) => {
        connected.value = up
        if (up) refresh()
      },
      end: refresh,
    })
  }, [path, round])

  const act = async (action: Action) => {
    try {
      setRun(await post<Run>(`${path}/${action}`))
      setError(undefined)
      if (action === 'resume') setRound((last) => last + 1)
    } catch (problem) {
      setError(problem as Error)
    }
  }
  return { run, history, log, error, act }
}

function Progress({ run: { progress, status } }: { run: Run }) {
  if (!progress) return null
  return (
    <>
      <Bar fraction={progress.step / Math.max(1, progress.total_steps)} label={t('progress')} />
      <p data-testid="progress">
        {progress.step}/{progress.total_steps} · {t('loss')} {number(progress.loss)} · {t('rate')}{' '}
        {number(progress.learning_rate)} · {number(progress.tokens_per_second)} {t('speed')}
        {progress.remaining_seconds !== null && isActive(status)
          ? ` · ${duration(progress.remaining_seconds)} ${t('remaining')}`
          : ''}
      </p>
    </>
  )
}

/** What a run in its status can be asked for. */
function Actions({ run: { id, status }, act }: { run: Run; act(action: Action): void }) {
  return (
    <p class="actions">
      {(status === 'queued' || status === 'running') && (
        <button type="button" class="danger" onClick={() => act('cancel')}>
          {t('abort')}
        </button>
      )}
      {status === 'cancelling' && <span class="muted">{t('aborting')}</span>}
      {(status === 'cancelled' || status === 'failed') && (
        <button type="button" onClick={() => act('resume')}>
          {t('resume')}
        </button>
      )}
      {status === 'succeeded' && (
        <a class="button" href={`#/chat/${encodeURIComponent(id)}`}>
          {t('talk')}
        </a>
      )}
      {status === 'succeeded' && (
        <a class="button" href={`#/export/${encodeURIComponent(id)}`}>
          {t('merge')} / {t('exportIt')}
        </a>
      )}
    </p>
  )
}

function withProgress(run: Run | undefined, data: Record<string, unknown>): Run | undefined {
  if (!run) return run
  const value = (name: string) => (typeof data[name] === 'number' ? data[name] : null)
  return {
    ...run,
    status: run.status === 'queued' ? 'running' : run.status,
    progress: {
      step: value('step') ?? 0,
      total_steps: value('total_steps') ?? 0,
      epoch: value('epoch') ?? 0,
      loss: value('loss'),
      learning_rate: value('learning_rate'),
      tokens_per_second: value('tokens_per_second'),
      elapsed_seconds: value('elapsed_seconds') ?? 0,
      remaining_seconds: value('remaining_seconds'),
    },
  }
}

function CheckpointTable({ checkpoints }: { checkpoints: readonly Checkpoint[] }) {
  if (checkpoints.length === 0) return <p class="muted">{t('none')}</p>
  return (
    <Scroll label={t('checkpoints')}>
      <table>
        <thead>
          <tr>
            <th scope="col">{t('steps')}</th>
            <th scope="col">{t('loss')}</th>
            <th scope="col">{t('evalLoss')}</th>
            <th scope="col">{t('size')}</th>
            <th scope="col">{t('chat')}</th>
            <th scope="col">{t('merge')}</th>
          </tr>
        </thead>
        <tbody>
          {checkpoints.map((checkpoint) => (
            <tr key={checkpoint.id}>
              <td>{checkpoint.step}</td>
              <td>{number(checkpoint.loss)}</td>
              <td>{number(checkpoint.eval_loss)}</td>
              <td>{bytes(checkpoint.bytes)}</td>
              <td>
                <a href={`#/chat/${encodeURIComponent(checkpoint.id)}`}>
                  {t('talk')} ({checkpoint.step})
                </a>
              </td>
              <td>
                <a href={`#/export/${encodeURIComponent(checkpoint.id)}`}>
                  {t('merge')} ({checkpoint.step})
                </a>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  )
}

/** The run beside its base on a dataset of choice. */
function Evaluate({ run }: { run: Run }) {
  const datasets = useResource<List<Dataset>>('/v1/datasets')
  const [dataset, setDataset] = useState(run.datasets[0] ?? '')
  const [path, setPath] = useState<string>()
  const [error, setError] = useState<Error>()
  const evaluation = useJob<Evaluation & TaskJob>(path)
  const start = async () => {
    try {
      const request = { model: [run.model, run.id], dataset, max_samples: 50, max_new_tokens: 64 }
      const { id } = await post<Evaluation>('/v1/evaluations', request)
      setPath(`/v1/evaluations/${id}`)
      setError(undefined)
    } catch (problem) {
      setError(problem as Error)
    }
  }
  const names = [...new Set(evaluation?.results.flatMap(({ metrics }) => Object.keys(metrics)) ?? [])]
  const usable = datasets.value?.data.filter((one) => one.error === null).map(({ name }) => name) ?? [dataset]
  return (
    <section class="card" aria-label={t('evaluate')}>
      <h2>{t('evaluate')}</h2>
      <SelectField label={t('evaluateOn')} value={dataset} options={usable} onChange={setDataset} />
      <p class="actions">
        <button
          type="button"
          onClick={start}
          disabled={evaluation !== undefined && isActive(evaluation.status)}
        >
          {t('evaluate')}
        </button>
      </p>
      <Problem error={error ?? (evaluation?.error ? new Error(evaluation.error.message) : undefined)} />
      {evaluation?.progress && isActive(evaluation.status) && (
        <Bar fraction={evaluation.progress.fraction} label={evaluation.progress.message} />
      )}
      {names.length > 0 && (
        <table>
          <thead>
            <tr>
              <th scope="col">{t('model')}</th>
              {evaluation!.results.map(({ model }) => (
                <th scope="col" key={model}>
                  {model}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {names.map((name) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                {evaluation!.results.map(({ model, metrics }) => (
                  <td key={model}>{number(metrics[name])}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </section>
  )
}
