import type { ComponentChildren } from 'preact'
import { useEffect, useRef, useState } from 'preact/hooks'
import { type ChatToken, streamChat } from '../api.ts'
import { t } from '../i18n.ts'
import { Field, NumberField, SelectField } from '../parts/form.tsx'
import { useResource } from '../parts/use-resource.ts'
import type { List, Model } from '../types.ts'

interface Settings {
  system: string
  temperature: string
  topP: string
  maxTokens: string
  seed: string
  logprobs: boolean
}

interface Turn {
  role: 'user' | 'assistant'
  content: string
  tokens?: ChatToken[]
  /** Of a finished answer. */
  speed?: number
  failed?: string
}

/** A question that every side answers; the number tells a repeated one apart. */
interface Question {
  text: string
  number: number
  again: boolean
}

/** Any model, alone or beside another one on the same questions. */
export function ChatPage({ model }: { model: string }) {
  const models = useResource<List<Model>>('/v1/models')
  const ids = models.value?.data.map(({ id }) => id) ?? []
  const [chosen, setChosen] = useState<[string, string]>([model, ''])
  const [double, setDouble] = useState(false)
  const [settings, setSettings] = useState<Settings>({
    system: '',
    temperature: '0.7',
    topP: '1',
    maxTokens: '256',
    seed: '',
    logprobs: false,
  })
  const [question, setQuestion] = useState<Question>()
  const [stops, setStops] = useState(0)
  const [clears, setClears] = useState(0)
  const sides = double ? [0, 1] : [0]
  const ask = (text: string, again: boolean) =>
    setQuestion((last) => ({ text, again, number: (last?.number ?? 0) + 1 }))
  const clear = () => {
    setQuestion(undefined)
    setClears(clears + 1)
  }
  return (
    <>
      <h1>{t('chat')}</h1>
      <SettingsCard settings={settings} onChange={setSettings} />
      <Check label={t('sideBySide')} value={double} onChange={setDouble} />
      <div class={double ? 'columns' : ''}>
        {sides.map((side) => (
          <section key={side} class="card" aria-label={side === 0 ? t('left') : t('right')}>
            <SelectField
              label={double ? `${t('model')}, ${side === 0 ? t('left') : t('right')}` : t('model')}
              value={chosen[side] || (ids[0] ?? '')}
              options={ids}
              onChange={(id) => setChosen(side === 0 ? [id, chosen[1]] : [chosen[0], id])}
            />
            <Side
              key={`${side}-${clears}`}
              model={chosen[side] || (ids[0] ?? '')}
              settings={settings}
              question={question}
              stops={stops}
            />
          </section>
        ))}
      </div>
      <AskForm disabled={ids.length === 0} onAsk={(text) => ask(text, false)}>
        <button type="button" class="quiet" onClick={() => setStops(stops + 1)}>
          {t('stop')}
        </button>
        <button type="button" class="quiet" disabled={!question} onClick={() => ask(question!.text, true)}>
          {t('regenerate')}
        </button>
        <button type="button" class="quiet" onClick={clear}>
          {t('clear')}
        </button>
      </AskForm>
    </>
  )
}

interface SettingsCardProps {
  settings: Settings
  onChange(settings: Settings): void
}

function SettingsCard({ settings, onChange }: SettingsCardProps) {
  const change =
    <K extends keyof Settings>(name: K) =>
    (value: Settings[K]) =>
      onChange({ ...settings, [name]: value })
  return (
    <details class="card">
      <summary>{t('advanced')}</summary>
      <Field label={t('system')}>
        {(id) => (
          <textarea
            id={id}
            rows={2}
            value={settings.system}
            onInput={(e) => change('system')(e.currentTarget.value)}
          />
        )}
      </Field>
      <div class="pair">
        <NumberField
          label={t('temperature')}
          value={settings.temperature}
          onChange={change('temperature')}
          min={0}
          max={2}
        />
        <NumberField label={t('topP')} value={settings.topP} onChange={change('topP')} min={0} max={1} />
        <NumberField
          label={t('maxTokens')}
          value={settings.maxTokens}
          onChange={change('maxTokens')}
          min={1}
        />
        <NumberField label={t('seed')} value={settings.seed} onChange={change('seed')} />
      </div>
      <Check label={t('showLogprobs')} value={settings.logprobs} onChange={change('logprobs')} />
    </details>
  )
}

interface AskFormProps {
  disabled: boolean
  onAsk(text: string): void
  /** More buttons. */
  children: ComponentChildren
}

/** Where the next question is written; Enter sends it. */
function AskForm({ disabled, onAsk, children }: AskFormProps) {
  const [draft, setDraft] = useState('')
  const send = (event: Event) => {
    event.preventDefault()
    if (draft.trim() === '') return
    onAsk(draft)
    setDraft('')
  }
  return (
    <form class="ask" onSubmit={send}>
      <Field label={t('message')}>
        {(id) => (
          <textarea
            id={id}
            rows={2}
            value={draft}
            onInput={(e) => setDraft(e.currentTarget.value)}
            onKeyDown={(e) => {
              if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) send(e)
            }}
          />
        )}
      </Field>
      <p class="actions">
        <button type="submit" disabled={draft.trim() === '' || disabled}>
          {t('send')}
        </button>
        {children}
      </p>
    </form>
  )
}

function Check(props: { label: string; value: boolean; onChange(value: boolean): void }) {
  return (
    <label class="check">
      <input
        type="checkbox"
        checked={props.value}
        onChange={(e) => props.onChange(e.currentTarget.checked)}
      />{' '}
      {props.label}
    </label>
  )
}

/** One model's conversation. */
function Side(props: { model: string; settings: Settings; question: Question | undefined; stops: number }) {
  const { model, settings, question, stops } = props
  const [turns, setTurns] = useState<Turn[]>([])
  const stop = useRef<() => void>(() => {})

  useEffect(() => stop.current(), [stops])
  useEffect(() => () => stop.current(), [])
  useEffect(() => {
    if (!question) return
    stop.current()
    const kept = question.again ? withoutLastQuestion(turns) : turns
    const history: Turn[] = [...kept, { role: 'user', content: question.text }]
    const answer: Turn = { role: 'assistant', content: '', tokens: [] }
    const show = (changes: Partial<Turn>) => {
      Object.assign(answer, changes)
      setTurns([...history, { ...answer }])
    }
    show({})
    let first: number | undefined
    stop.current = streamChat(requestOf(model, history, settings), {
      text(text, tokens) {
        first ??= performance.now()
        show({ content: answer.content + text, tokens: [...answer.tokens!, ...tokens] })
      },
      done(usage) {
        const seconds = first === undefined ? 0 : (performance.now() - first) / 1000
        show({ speed: usage && seconds > 0 ? usage.completion_tokens / seconds : undefined })
      },
      failed: (message) => show({ failed: message }),
    })
  }, [question?.number])

  return (
    <div class="turns" aria-live="polite">
      {turns.map((turn, index) => (
        <article key={index} class={`turn ${turn.role}`}>
          <h3>{turn.role === 'user' ? t('you') : `${t('answerOf')} ${model}`}</h3>
          {settings.logprobs && turn.tokens && turn.tokens.length > 0 ? (
            <Probabilities tokens={turn.tokens} />
          ) : (
            <p class="content">{turn.content}</p>
          )}
          {turn.failed && <p class="bad">{turn.failed}</p>}
          {turn.speed !== undefined && (
            <small class="muted">
              {turn.speed.toFixed(1)} {t('speed')}
            </small>
          )}
        </article>
      ))}
    </div>
  )
}

function withoutLastQuestion(turns: readonly Turn[]): Turn[] {
  const at = turns.findLastIndex(({ role }) => role === 'user')
  return at === -1 ? [...turns] : turns.slice(0, at)
}

function requestOf(model: string, turns: readonly Turn[], settings: Settings): Record<string, unknown> {
  const system = settings.system === '' ? [] : [{ role: 'system', content: settings.system }]
  return {
    model,
    messages: [...system, ...turns.map(({ role, content }) => ({ role, content }))],
    temperature: Number(settings.temperature),
    top_p: Number(settings.topP),
    max_tokens: Number(settings.maxTokens),
    ...(settings.seed !== '' && { seed: Number(settings.seed) }),
    ...(settings.logprobs && { logprobs: true, top_logprobs: 3 }),
  }
}

/** An answer by its tokens: the surer, the stronger the line; what else was likely shows on hover and focus. */
function Probabilities({ tokens }: { tokens: readonly ChatToken[] }) {
  return (
    <p class="content probabilities">
      {tokens.map(({ token, logprob, top_logprobs: top }, index) => {
        const others = top.map((one) => `${JSON.stringify(one.token)} ${share(one.logprob)}`).join('\n')
        const level = Math.min(4, Math.floor(Math.exp(logprob) * 5))
        return (
          <span key={index} class={`p${level}`} title={`${share(logprob)}\n${others}`}>
            {token}
          </span>
        )
      })}
    </p>
  )
}

const share = (logprob: number) => `${(100 * Math.exp(logprob)).toFixed(1)} %`
