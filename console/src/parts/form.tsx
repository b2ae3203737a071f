import type { ComponentChildren } from 'preact'
import { useId, useState } from 'preact/hooks'
import { t } from '../i18n.ts'
import { Scroll } from './scroll.tsx'

/** A labelled control; `children` gets the id that the label points to. */
export function Field(props: { label: string; hint?: string; children: (id: string) => ComponentChildren }) {
  const id = useId()
  return (
    <div class="field">
      <label for={id}>{props.label}</label>
      {props.children(id)}
      {props.hint && <small>{props.hint}</small>}
    </div>
  )
}

export function NumberField(props: {
  label: string
  value: string
  onChange(value: string): void
  step?: string
  min?: number
  max?: number
}) {
  const { label, value, onChange, ...rest } = props
  return (
    <Field label={label}>
      {(id) => (
        <input
          id={id}
          type="number"
          inputMode="decimal"
          step="any"
          value={value}
          onInput={(event) => onChange(event.currentTarget.value)}
          {...rest}
        />
      )}
    </Field>
  )
}

export function SelectField(props: {
  label: string
  value: string
  options: readonly (string | { value: string; label: string })[]
  onChange(value: string): void
}) {
  const { label, value, options, onChange } = props
  return (
    <Field label={label}>
      {(id) => (
        <select id={id} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
          {options.map((option) => {
            const item = typeof option === 'string' ? { value: option, label: option } : option
            return (
              <option key={item.value} value={item.value} selected={item.value === value}>
                {item.label}
              </option>
            )
          })}
        </select>
      )}
    </Field>
  )
}

/** What went wrong, in the server's words. */
export function Problem({ error }: { error: Error | undefined }) {
  return (
    <div role="alert" class={error ? 'problem' : ''}>
      {error?.message}
    </div>
  )
}

/** Text to copy, with its button. */
export function Copyable({ label, text }: { label: string; text: string }) {
  const [copied, setCopied] = useState(false)
  const copy = async () => {
    await navigator.clipboard.writeText(text)
    setCopied(true)
  }
  return (
    <figure class="copyable">
      <figcaption>
        {label}
        <button type="button" class="quiet" onClick={copy} aria-label={`${t('copy')}: ${label}`}>
          {copied ? t('copied') : t('copy')}
        </button>
      </figcaption>
      <Scroll label={label}>
        <pre>{text}</pre>
      </Scroll>
    </figure>
  )
}

export function Bar({ fraction, label }: { fraction: number; label: string }) {
  return (
    <div class="bar">
      <progress max={1} value={fraction} aria-label={label} />
      <span>{Math.floor(fraction * 100)} %</span>
    </div>
  )
}
