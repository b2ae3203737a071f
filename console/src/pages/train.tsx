import { useEffect, useState } from 'preact/hooks'
import { postRaw } from '../api.ts'
import { bytes, count } from '../format.ts'
import { t } from '../i18n.ts'
import { Copyable, Field, NumberField, Problem, SelectField } from '../parts/form.tsx'
import { PreviewRows } from '../parts/preview-rows.tsx'
import { useResource } from '../parts/use-resource.ts'
import type { Dataset, List, Model, Run, TrainingPreview } from '../types.ts'

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

/** Folded fields: left out of the request while they are empty. */
const ADVANCED: readonly { name: string; options?: readonly string[] }[] = [
  { name: 'gradient_accumulation_steps' },
  { name: 'max_steps' },
  { name: 'lora_alpha' },
  { name: 'lora_dropout' },
  { name: 'lora_target' },
  { name: 'lr_scheduler_type', options: ['', 'linear', 'cosine', 'constant', 'constant_with_warmup'] },
  { name: 'warmup_ratio' },
  { name: 'weight_decay' },
  { name: 'max_grad_norm' },
  { name: 'val_size' },
  { name: 'eval_steps' },
  { name: 'logging_steps' },
  { name: 'save_steps' },
  { name: 'save_total_limit' },
  { name: 'max_samples' },
  { name: 'seed' },
  { name: 'packing', options: ['', 'true', 'false'] },
  { name: 'train_on_prompt', options: ['', 'true', 'false'] },
  { name: 'mask_history', options: ['', 'true', 'false'] },
  { name: 'use_rslora', options: ['', 'true', 'false'] },
  { name: 'use_dora', options: ['', 'true', 'false'] },
  { name: 'quantization_bit', options: ['', '4', '8'] },
  { name: 'template' },
  { name: 'output_dir' },
]

const KEPT = 'anneal-train-form'
/** Pause in typing after which the estimate is asked for. */
const TYPING_MS = 500

interface Form {
  fields: Record<string, string>
  more: string
}

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

/** Pick, look, start. The form is kept in this browser; a started run goes on whatever happens to the page. */
export function TrainPage() {
  const [form, setForm] = useState(keptForm)
  const [preview, setPreview] = useState<TrainingPreview>()
  const [error, setError] = useState<Error>()
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

  useEffect(() => {
    localStorage.setItem(KEPT, JSON.stringify(form))
    if (fields.model_name_or_path === '' || fields.dataset === '') return
    let stale = false
    const timer = window.setTimeout(async () => {
      try {
        const found = await postRaw<TrainingPreview>('/v1/training/preview', yamlOf(form), 'application/yaml')
        if (!stale) {
          setPreview(found)
          setError(undefined)
        }
      } catch (problem) {
        if (!stale) {
          setPreview(undefined)
          setError(problem as Error)
        }
      }
    }, TYPING_MS)
    return () => {
      stale = true
      window.clearTimeout(timer)
    }
  }, [form])

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
          <div class="pair">
            <SelectField
              label={t('stage')}
              value={fields.stage ?? 'sft'}
              options={['sft', 'pt', 'dpo', 'kto', 'rm']}
              onChange={set('stage')}
            />
            <SelectField
              label={t('method')}
              value={fields.finetuning_type ?? 'lora'}
              options={['lora', 'full', 'freeze']}
              onChange={set('finetuning_type')}
            />
            <NumberField
              label={t('epochs')}
              value={fields.num_train_epochs ?? ''}
              onChange={set('num_train_epochs')}
            />
            <NumberField
              label={t('learningRate')}
              value={fields.learning_rate ?? ''}
              onChange={set('learning_rate')}
            />
            <NumberField
              label={t('batchSize')}
              value={fields.per_device_train_batch_size ?? ''}
              onChange={set('per_device_train_batch_size')}
            />
            <NumberField label={t('cutoff')} value={fields.cutoff_len ?? ''} onChange={set('cutoff_len')} />
            {fields.finetuning_type === 'lora' && (
              <NumberField label={t('rank')} value={fields.lora_rank ?? ''} onChange={set('lora_rank')} />
            )}
          </div>
          <details>
            <summary>{t('advanced')}</summary>
            <div class="pair">
              {ADVANCED.map(({ name, options }) =>
                options ? (
                  <SelectField
                    key={name}
                    label={name}
                    value={fields[name] ?? ''}
                    options={options}
                    onChange={set(name)}
                  />
                ) : (
                  <Field key={name} label={name}>
                    {(id) => (
                      <input
                        id={id}
                        value={fields[name] ?? ''}
                        onInput={(e) => set(name)(e.currentTarget.value)}
                      />
                    )}
                  </Field>
                ),
              )}
            </div>
            <Field label={t('moreFields')} hint={t('moreHint')}>
              {(id) => (
                <textarea
                  id={id}
                  rows={3}
                  spellcheck={false}
                  value={form.more}
                  onInput={(e) => setForm({ ...form, more: e.currentTarget.value })}
                />
              )}
            </Field>
          </details>
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
