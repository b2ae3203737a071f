import { useState } from 'preact/hooks'
import { get, post, postRaw } from '../api.ts'
import { bytes, count } from '../format.ts'
import { t } from '../i18n.ts'
import { Field, Problem, SelectField } from '../parts/form.tsx'
import { PreviewRows } from '../parts/preview-rows.tsx'
import { Scroll } from '../parts/scroll.tsx'
import { useResource } from '../parts/use-resource.ts'
import type { Dataset, DatasetPreview, List, Model } from '../types.ts'

const FORMS = ['alpaca', 'sharegpt', 'openai']
/** The columns that each form can have, by LLaMA-Factory's names. */
const COLUMNS: Record<string, readonly string[]> = {
  alpaca: ['prompt', 'query', 'response', 'history', 'system'],
  sharegpt: ['messages', 'system', 'tools'],
  openai: ['messages', 'system', 'tools'],
}
const PAGE = 100
const MAX_SHOWN_ERRORS = 100

/** Upload with mapped columns, convert, look at rows, find the bad ones. */
export function DatasetsPage() {
  const datasets = useResource<List<Dataset>>('/v1/datasets')
  const [chosen, setChosen] = useState<string>()
  return (
    <>
      <h1>{t('datasets')}</h1>
      <Problem error={datasets.error} />
      <Scroll label={t('datasets')}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t('name')}</th>
              <th scope="col">{t('formatting')}</th>
              <th scope="col">{t('rows')}</th>
              <th scope="col">{t('size')}</th>
              <th scope="col">{t('open')}</th>
            </tr>
          </thead>
          <tbody>
            {datasets.value?.data.map(({ name, formatting, rows, bytes: size, error }) => (
              <tr key={name}>
                <td>{name}</td>
                <td>{formatting}</td>
                <td>{error ? <span class="bad">{error}</span> : rows === null ? '–' : count(rows)}</td>
                <td>{size === null ? '–' : bytes(size)}</td>
                <td>
                  <button
                    type="button"
                    class="quiet"
                    disabled={error !== null}
                    onClick={() => setChosen(name)}
                  >
                    {t('preview')} <span class="hidden">{name}</span>
                  </button>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {chosen && <Look key={chosen} name={chosen} onChanged={datasets.refresh} />}
      <Upload onDone={datasets.refresh} />
    </>
  )
}

function Look({ name, onChanged }: { name: string; onChanged(): void }) {
  const models = useResource<List<Model>>('/v1/models')
  const bases = models.value?.data.filter(({ kind }) => kind === 'base').map(({ id }) => id) ?? []
  const [model, setModel] = useState('')
  const [stage, setStage] = useState('sft')
  const shown = model || bases[0]
  return (
    <section class="card" aria-label={name}>
      <h2>{name}</h2>
      <div class="pair">
        <SelectField label={t('base')} value={shown ?? ''} options={bases} onChange={setModel} />
        <SelectField
          label={t('stage')}
          value={stage}
          options={['sft', 'pt', 'dpo', 'kto', 'rm']}
          onChange={setStage}
        />
      </div>
      <PreviewRows dataset={name} model={shown} stage={stage} />
      <Validate name={name} model={shown} stage={stage} />
      <Convert name={name} onDone={onChanged} />
    </section>
  )
}

/** Reads every row as the model would, page by page, and lists those that it cannot use. */
function Validate({ name, model, stage }: { name: string; model: string | undefined; stage: string }) {
  const [done, setDone] = useState<number>()
  const [bad, setBad] = useState<{ index: number; error: string }[]>([])
  const [error, setError] = useState<Error>()
  const check = async () => {
    setBad([])
    setError(undefined)
    try {
      const found: { index: number; error: string }[] = []
      let total = 1
      for (let offset = 0; offset < total && found.length < MAX_SHOWN_ERRORS; offset += PAGE) {
        const query = new URLSearchParams({ offset: String(offset), limit: String(PAGE), stage })
        if (model) query.set('model', model)
        const page = await get<DatasetPreview>(`/v1/datasets/${encodeURIComponent(name)}/preview?${query}`)
        total = page.total_rows ?? 0
        for (const { index, error: problem } of page.data) if (problem) found.push({ index, error: problem })
        setBad([...found])
        setDone(Math.min(total, offset + PAGE))
      }
    } catch (problem) {
      setError(problem as Error)
    }
  }
  return (
    <div aria-live="polite">
      <button type="button" class="quiet" onClick={check}>
        {t('validate')}
      </button>
      <Problem error={error} />
      {done !== undefined && bad.length === 0 && !error && (
        <p>
          {t('allGood')} ({count(done)})
        </p>
      )}
      {bad.length > 0 && (
        <>
          <h3>{t('badRows')}</h3>
          <ul>
            {bad.map(({ index, error: problem }) => (
              <li key={index}>
                {t('row')} {index + 1}: {problem}
              </li>
            ))}
          </ul>
        </>
      )}
    </div>
  )
}

function Convert({ name, onDone }: { name: string; onDone(): void }) {
  const [target, setTarget] = useState(`${name}_alpaca`)
  const [pairs, setPairs] = useState<[string, string][]>([
    ['query', 'instruction'],
    ['response', 'output'],
  ])
  const [error, setError] = useState<Error>()
  const [made, setMade] = useState<string>()
  const convert = async () => {
    try {
      const rename = Object.fromEntries(pairs.filter(([from, to]) => from !== '' && to !== ''))
      await post(`/v1/datasets/${encodeURIComponent(name)}/convert`, { name: target, rename })
      setMade(target)
      setError(undefined)
      onDone()
    } catch (problem) {
      setError(problem as Error)
    }
  }
  const change = (row: number, side: 0 | 1, value: string) =>
    setPairs(
      pairs.map((pair, index) => (index === row ? (side === 0 ? [value, pair[1]] : [pair[0], value]) : pair)),
    )
  return (
    <details>
      <summary>{t('convert')}</summary>
      <Field label={t('name')}>
        {(id) => <input id={id} value={target} onInput={(e) => setTarget(e.currentTarget.value)} />}
      </Field>
      {[...pairs, ['', ''] as [string, string]].map(([from, to], row) => (
        <div class="pair" key={row}>
          <Field label={`${t('oldKey')} ${row + 1}`}>
            {(id) => (
              <input
                id={id}
                value={from}
                onInput={(e) =>
                  row < pairs.length
                    ? change(row, 0, e.currentTarget.value)
                    : setPairs([...pairs, [e.currentTarget.value, '']])
                }
              />
            )}
          </Field>
          <Field label={`${t('newKey')} ${row + 1}`}>
            {(id) => (
              <input
                id={id}
                value={to}
                onInput={(e) =>
                  row < pairs.length
                    ? change(row, 1, e.currentTarget.value)
                    : setPairs([...pairs, ['', e.currentTarget.value]])
                }
              />
            )}
          </Field>
        </div>
      ))}
      <Problem error={error} />
      <button type="button" onClick={convert}>
        {t('convert').split(/[:：]/)[0]}
      </button>
      {made && (
        <p role="status">
          {t('done')}: {made}
        </p>
      )}
    </details>
  )
}

function Upload({ onDone }: { onDone(): void }) {
  const [name, setName] = useState('')
  const [formatting, setFormatting] = useState('alpaca')
  const [columns, setColumns] = useState<Record<string, string>>({})
  const [file, setFile] = useState<File>()
  const [error, setError] = useState<Error>()
  const [made, setMade] = useState<string>()
  const upload = async (event: Event) => {
    event.preventDefault()
    if (!file) return
    const given = Object.fromEntries(Object.entries(columns).filter(([, key]) => key !== ''))
    const form = new FormData()
    form.set('name', name)
    form.set('formatting', formatting)
    if (Object.keys(given).length > 0) form.set('columns', JSON.stringify(given))
    form.set('file', file)
    try {
      await postRaw('/v1/datasets', form)
      setMade(name)
      setError(undefined)
      onDone()
    } catch (problem) {
      setMade(undefined)
      setError(problem as Error)
    }
  }
  return (
    <form class="card" onSubmit={upload}>
      <h2>{t('upload')}</h2>
      <Field label={t('file')}>
        {(id) => (
          <input
            id={id}
            type="file"
            required
            accept=".json,.jsonl,.csv,.parquet,.txt"
            onChange={(e) => {
              const [picked] = e.currentTarget.files ?? []
              setFile(picked)
              if (picked && name === '')
                setName(picked.name.replace(/\.[^.]+$/, '').replace(/[^A-Za-z0-9_.-]+/g, '_'))
            }}
          />
        )}
      </Field>
      <div class="pair">
        <Field label={t('name')}>
          {(id) => <input id={id} required value={name} onInput={(e) => setName(e.currentTarget.value)} />}
        </Field>
        <SelectField label={t('formatting')} value={formatting} options={FORMS} onChange={setFormatting} />
      </div>
      <details>
        <summary>{t('mapColumns')}</summary>
        <div class="pair">
          {COLUMNS[formatting]!.map((column) => (
            <Field key={column} label={column}>
              {(id) => (
                <input
                  id={id}
                  value={columns[column] ?? ''}
                  onInput={(e) => setColumns({ ...columns, [column]: e.currentTarget.value })}
                />
              )}
            </Field>
          ))}
        </div>
      </details>
      <Problem error={error} />
      <button type="submit" disabled={!file || name === ''}>
        {t('upload')}
      </button>
      {made && (
        <p role="status">
          {t('done')}: {made}
        </p>
      )}
    </form>
  )
}
