import { useState } from 'preact/hooks'
import { getBlob, getText, post } from '../api.ts'
import { bytes, duration, time } from '../format.ts'
import { t } from '../i18n.ts'
import { Bar, Copyable, NumberField, Problem, SelectField } from '../parts/form.tsx'
import { Scroll } from '../parts/scroll.tsx'
import { isActive, Status } from '../parts/status.tsx'
import { useJob } from '../parts/use-job.ts'
import { useResource } from '../parts/use-resource.ts'
import type { Dataset, ExportFile, ExportJob, List, Model, TaskJob } from '../types.ts'

const FORMATS = ['safetensors', 'gguf', 'gptq', 'onnx', 'ollama']
const BITS = ['16', '8', '4', '3', '2']
const REFRESH_MS = 4_000

/** An export's request, but for the model. */
interface ExportChoice {
  format: string
  bits: number
  method?: string
  export_quantization_dataset?: string
  max_kld?: number
}

/** Merge first where it must be, then format and bits; then everything for downloading. */
export function ExportPage({ model }: { model: string }) {
  const models = useResource<List<Model>>('/v1/models', REFRESH_MS)
  const exports = useResource<List<ExportJob>>('/v1/exports?limit=50', REFRESH_MS)
  const all = models.value?.data.filter(({ kind }) => kind !== 'export') ?? []
  const [chosen, setChosen] = useState(model)
  const [error, setError] = useState<Error>()
  const [merge, setMerge] = useState<string>()
  const [started, setStarted] = useState<string>()
  const merging = useJob<TaskJob>(merge)
  const exporting = useJob<ExportJob>(started)
  const current = all.find(({ id }) => id === (chosen || all[0]?.id))
  const isAdapter = current?.kind === 'run' || current?.kind === 'checkpoint'

  const attempt = async (work: () => Promise<void>) => {
    try {
      setError(undefined)
      await work()
    } catch (problem) {
      setError(problem as Error)
    }
  }
  const startMerge = () =>
    attempt(async () => {
      const { id } = await post<TaskJob>('/v1/merges', { model: current!.id })
      setMerge(`/v1/merges/${id}`)
    })
  const startExport = (choice: ExportChoice) =>
    attempt(async () => {
      const { id } = await post<ExportJob>('/v1/exports', { model: current!.id, ...choice })
      setStarted(`/v1/exports/${id}`)
      exports.refresh()
    })

  return (
    <>
      <h1>{t('exportModels')}</h1>
      <section class="card" aria-label={t('exportIt')}>
        <SelectField
          label={t('model')}
          value={current?.id ?? ''}
          options={all.map(({ id, kind }) => ({ value: id, label: `${id} (${kind})` }))}
          onChange={(id) => {
            setChosen(id)
            setError(undefined)
          }}
        />
        {isAdapter ? (
          <>
            <p class="note">{t('mergeFirst')}</p>
            <button
              type="button"
              onClick={startMerge}
              disabled={merging !== undefined && isActive(merging.status)}
            >
              {t('merge')}
            </button>
          </>
        ) : (
          <ExportForm disabled={current === undefined} onExport={startExport} />
        )}
        <Problem error={error} />
        <TaskView job={merging} label={t('merging')} />
        {merging?.status === 'succeeded' && (
          <p>
            {t('merged')}:{' '}
            <button type="button" class="quiet" onClick={() => setChosen(merging.id)}>
              {merging.id}
            </button>
          </p>
        )}
        <TaskView job={exporting} label={t('exportIt')} />
      </section>
      <h2>{t('exports')}</h2>
      {exports.value?.data.length === 0 && <p class="muted">{t('none')}</p>}
      {exports.value?.data.map((job) => (
        <ExportCard key={job.id} job={job} />
      ))}
    </>
  )
}

interface ExportFormProps {
  disabled: boolean
  onExport(choice: ExportChoice): void
}

/** Format and bits, and how to quantize where that is asked for. */
function ExportForm({ disabled, onExport }: ExportFormProps) {
  const [format, setFormat] = useState('safetensors')
  const [bits, setBits] = useState('16')
  const [method, setMethod] = useState('')
  const [calibration, setCalibration] = useState('')
  const [maxKld, setMaxKld] = useState('')
  const datasets = useResource<List<Dataset>>('/v1/datasets')
  const quantized = Number(bits) < 16
  const send = () =>
    onExport({
      format,
      bits: Number(bits),
      ...(quantized && method !== '' && { method }),
      ...(quantized && calibration !== '' && { export_quantization_dataset: calibration }),
      ...(quantized && maxKld !== '' && { max_kld: Number(maxKld) }),
    })
  return (
    <>
      <div class="pair">
        <SelectField label={t('format')} value={format} options={FORMATS} onChange={setFormat} />
        <SelectField label={t('bits')} value={bits} options={BITS} onChange={setBits} />
        {quantized && (
          <>
            <SelectField
              label={t('rounding')}
              value={method}
              options={['', 'rtn', 'gptq', 'awq']}
              onChange={setMethod}
            />
            <SelectField
              label={t('calibration')}
              value={calibration}
              options={['', ...(datasets.value?.data.map(({ name }) => name) ?? [])]}
              onChange={setCalibration}
            />
            <NumberField label={t('maxKld')} value={maxKld} onChange={setMaxKld} min={0} />
          </>
        )}
      </div>
      <button type="button" onClick={send} disabled={disabled}>
        {t('exportIt')}
      </button>
    </>
  )
}

function TaskView({ job, label }: { job: TaskJob | undefined; label: string }) {
  if (!job) return null
  const { progress, error, status } = job
  return (
    <div aria-live="polite">
      <p>
        {job.id} <Status status={status} />
      </p>
      {progress && isActive(status) && (
        <>
          <Bar fraction={progress.fraction} label={label} />
          <p class="muted">
            {progress.message}
            {progress.remaining_seconds !== null &&
              ` · ${duration(progress.remaining_seconds)} ${t('remaining')}`}
          </p>
        </>
      )}
      <Problem error={error ? new Error(error.message) : undefined} />
    </div>
  )
}

function ExportCard({ job }: { job: ExportJob }) {
  const [open, setOpen] = useState(false)
  return (
    <details class="card" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        {job.id} · {job.model} · {job.format} {job.bits} <Status status={job.status} />{' '}
        <small>{time(job.created_at)}</small>
      </summary>
      <Problem error={job.error ? new Error(job.error.message) : undefined} />
      {open && job.status === 'succeeded' && <Downloads job={job} />}
    </details>
  )
}

function Downloads({ job }: { job: ExportJob }) {
  const base = `/v1/exports/${job.id}`
  const files = useResource<List<ExportFile>>(`${base}/files`)
  const names = files.value?.data.map(({ path }) => path) ?? []
  return (
    <>
      <Scroll label={t('files')}>
        <table>
          <thead>
            <tr>
              <th scope="col">{t('files')}</th>
              <th scope="col">{t('size')}</th>
              <th scope="col">SHA-256</th>
            </tr>
          </thead>
          <tbody>
            {files.value?.data.map((file) => (
              <tr key={file.path}>
                <td>
                  <Download
                    href={`${base}/files/${file.path.split('/').map(encodeURIComponent).join('/')}`}
                    name={file.path}
                  />
                </td>
                <td>{bytes(file.bytes)}</td>
                <td>
                  <code class="digest">{file.sha256}</code>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      <p>
        <Download href={`${base}/archive.tar`} name={`${job.id}.tar`} label={t('archive')} />
      </p>
      {names.includes('report.md') && <Report href={`${base}/files/report.md`} />}
      {commandsFor(job, names).map(({ label, text }) => (
        <Copyable key={label} label={label} text={text} />
      ))}
    </>
  )
}

/** A plain link where that is enough; with an API key the page fetches the file itself, as a link cannot carry the key. */
function Download({ href, name, label = name }: { href: string; name: string; label?: string }) {
  const key = sessionStorage.getItem('anneal-api-key')
  const fetchIt = async (event: Event) => {
    if (!key) return
    event.preventDefault()
    const link = document.createElement('a')
    link.href = URL.createObjectURL(await getBlob(href))
    link.download = name.split('/').at(-1)!
    link.click()
    URL.revokeObjectURL(link.href)
  }
  return (
    <a href={href} download onClick={fetchIt}>
      {label}
    </a>
  )
}

function Report({ href }: { href: string }) {
  const [text, setText] = useState<string>()
  return (
    <details onToggle={() => getText(href).then(setText, (error: Error) => setText(error.message))}>
      <summary>{t('report')}</summary>
      <Scroll label={t('report')}>
        <pre>{text ?? t('loading')}</pre>
      </Scroll>
    </details>
  )
}

function commandsFor({ id, format }: ExportJob, files: readonly string[]): { label: string; text: string }[] {
  const { origin, host } = location
  const gguf = files.find((name) => name.endsWith('.gguf'))
  const everything = [
    {
      label: 'curl',
      text: `curl -fL -C - -o ${id}.tar ${origin}/v1/exports/${id}/archive.tar && tar xf ${id}.tar`,
    },
    { label: 'hf', text: `HF_ENDPOINT=${origin}/hub hf download anneal/${id} --local-dir ${id}` },
  ]
  if (gguf) {
    return [
      ...everything,
      { label: 'llama.cpp', text: `llama-server -m ${id}/${gguf}` },
      { label: 'ollama', text: `ollama run ${host}/anneal/${id} --insecure` },
    ]
  }
  if (format === 'safetensors' || format === 'gptq') {
    return [...everything, { label: 'vLLM', text: `vllm serve ./${id}` }]
  }
  return everything
}
