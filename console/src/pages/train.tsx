import { useEffect, useState } from 'preact/hooks'
import { postRaw } from '../api.ts'
import { bytes, count } from '../format.ts'
import { t } from '../i18n.ts'
import { Copyable, Field, Problem, SelectField } from '../parts/form.tsx'
import { PreviewRows } from '../parts/preview-rows.tsx'
import { useResource } from '../parts/use-resource.ts'
import type { Dataset, List, Model, Run, TrainingPreview } from '../types.ts'
import { AdvancedFields, type Form, MainFields } from './train-fields.tsx'

/** Main fields with their defaults, by LLaMA-Factory's names. */
const DEFAULTS: Record<string, string> = {
  model_name_or_path: '',
  dataset: '',
  stage: 'sft',
  finetuning_type: 'lora',
  num_train_epochs: '10',
  learning_rate: '1e-4',
  per_device_train_batch_size: '4',
  cutoff_len: '2048',
  lora_rank: '8',
  logging_steps: '5',
  save_steps: '100',
}

const KEPT = 'anneal-train-form'
/** Pause in typing after which the estimate is asked for. */
const TYPING_MS = 500

function keptForm(): Form {
  try {
    const kept = JSON.parse(localStorage.getItem(KEPT) ?? '{}') as Partial<Form>
    return { fields: { ...DEFAULTS, ...kept.fields }, more: kept.more ?? '' }
  } catch {
    return { fields: { ...DEFAULTS }, more: '' }
  }
}

/** The request: YAML, so that further fields go along as they were typed. */
function yamlOf({ fields, more }: Form): string {
  const lines = Object.entries(fields).filter(([, value]) => value !== '')
  return `${lines.map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join('\n')}\n${more}\n`
}

/** What a run of the form would do, asked for once typing pauses; or why it cannot be. */
function usePreview(form: Form) {
  const [preview, setPreview] = useState<TrainingPreview>()
  const [error, setError] = useState<Error>()
  useEffect(() => {
    const { model_name_or_path: model, dataset } = form.fields
    if (model === '' || dataset === '') return
    let stale = false
    const timer = window.setTimeout(async () => {
      const found = await postRaw<TrainingPreview>(
        '/v1/training/preview',
        yamlOf(form),
        'application/yaml',
      ).catch((problem: Error) => problem)
      if (stale) return
      const failed = found instanceof Error
      setPreview(failed ? undefined : found)
      setError(failed ? found : undefined)
    }, TYPING_MS)
    return () => {
      stale = true
      window.clearTimeout(timer)
    }
  }, [form])
  return { preview, error, setError }
}

/** Pick, look, start. The form is kept in this browser; a started run goes on whatever happens to the page. */
export function TrainPage() {
  const [form, setForm] = useState(keptForm)
  const { preview, error, setError } = usePreview(form)
  const [starting, setStarting] = useState(false)
  const models = useResource<List<Model>>('/v1/models')
  const datasets = useResource<List<Dataset>>('/v1/datasets')
  const bases = models.value?.data.filter(({ kind }) => kind === 'base' || kind === 'merge') ?? []
  const set = (name: string) => (value: string) =>
    setForm((last) => ({ ...last, fields: { ...last.fields, [name]: value } }))
  const { fields } = form

  useEffect(() => {
    const first = bases[0]
    if (first && !bases.some(({ id }) => id === fields.model_name_or_path))
      set('model_name_or_path')(first.id)
  }, [models.value])

  useEffect(() => localStorage.setItem(KEPT, JSON.stringify(form)), [form])

  const start = async (event: Event) => {
    event.preventDefault()
    setStarting(true)
    try {
      const run = await postRaw<Run>('/v1/training/runs', yamlOf(form), 'application/yaml')
      location.hash = `#/runs/${run.id}`
    } catch (problem) {
      setError(problem as Error)
    } finally {
      setStarting(false)
    }
  }

  return (
    <form onSubmit={start}>
      <h1>{t('train')}</h1>
      <div class="columns">
        <section class="card" aria-label={t('train')}>
          <SelectField
            label={t('base')}
            value={fields.model_name_or_path ?? ''}
            options={bases.map(({ id }) => id)}
            onChange={set('model_name_or_path')}
          />
          <DatasetPicker
            datasets={datasets.value?.data ?? []}
            value={fields.dataset ?? ''}
            onChange={set('dataset')}
          />
          <MainFields fields={fields} set={set} />
          <AdvancedFields form={form} set={set} onMore={(more) => setForm({ ...form, more })} />
          <Problem error={error ?? models.error ?? datasets.error} />
          <button type="submit" disabled={starting || preview === undefined}>
            {starting ? t('starting') : t('start')}
          </button>
        </section>
        <Estimate preview={preview} />
      </div>
      {fields.dataset !== '' && (
        <section class="card" aria-label={t('preview')}>
          <h2>{t('preview')}</h2>
          <PreviewRows
            dataset={(fields.dataset ?? '').split(',')[0]!}
            model={fields.model_name_or_path || undefined}
            stage={fields.stage ?? 'sft'}
            cutoff={fields.cutoff_len || undefined}
          />
        </section>
      )}
    </form>
  )
}

function DatasetPicker(props: {
  datasets: readonly Dataset[]
  value: string
  onChange(value: string): void
}) {
  const chosen = props.value.split(',')
  const usable = props.datasets.filter(({ error }) => error === null)
  return (
    <Field label={t('dataset')} hint={t('datasetsHint')}>
      {(id) => (
        <select
          id={id}
          multiple
          size={Math.min(6, Math.max(2, usable.length))}
          onChange={(event) =>
            props.onChange([...event.currentTarget.selectedOptions].map(({ value }) => value).join(','))
          }
        >
          {usable.map(({ name, rows }) => (
            <option key={name} value={name} selected={chosen.includes(name)}>
              {rows === null ? name : `${name} (${count(rows)} ${t('rows')})`}
            </option>
          ))}
        </select>
      )}
    </Field>
  )
}

function Estimate({ preview }: { preview: TrainingPreview | undefined }) {
  return (
    <section class="card" aria-label={t('estimate')} aria-live="polite">
      <h2>{t('estimate')}</h2>
      {preview === undefined ? (
        <p class="muted">–</p>
      ) : (
        <>
          <dl>
            <dt>{t('steps')}</dt>
            <dd data-testid="steps">{count(preview.total_steps)}</dd>
            <dt>{t('examples')}</dt>
            <dd>{count(preview.train_examples)}</dd>
            <dt>{t('tokensEpoch')}</dt>
            <dd>
              {count(preview.tokens_per_epoch)} ({count(preview.trained_tokens_per_epoch)} {t('learned')})
            </dd>
            <dt>{t('trainable')}</dt>
            <dd>{count(preview.trainable_parameters)}</dd>
            <dt>{t('memory')}</dt>
            <dd class={preview.memory.fits ? '' : 'bad'}>
              {bytes(preview.memory.required_bytes)} / {bytes(preview.memory.available_bytes)}:{' '}
              {preview.memory.fits ? t('fits') : t('fitsNot')}
            </dd>
          </dl>
          {preview.warnings.map(({ code, message }) => (
            <p key={code + message} class="note">
              <strong>{t('warning')}:</strong> {message}
            </p>
          ))}
          <Copyable label={t('command')} text={`npx ${preview.command}`} />
          <Copyable label={t('yaml')} text={preview.yaml} />
        </>
      )}
    </section>
  )
}
