import { useState } from 'preact/hooks'
import { t } from '../i18n.ts'
import type { DatasetPreview } from '../types.ts'
import { Problem } from './form.tsx'
import { Tokens } from './tokens.tsx'
import { useResource } from './use-resource.ts'

const PAGE = 2

/** Rows of a dataset as a model reads them, what is learned marked. */
export function PreviewRows(props: { dataset: string; model?: string; stage: string; cutoff?: string }) {
  const { dataset, model, stage, cutoff } = props
  const [offset, setOffset] = useState(0)
  const query = new URLSearchParams({ offset: String(offset), limit: String(PAGE), stage })
  if (model) query.set('model', model)
  if (cutoff) query.set('cutoff_len', cutoff)
  const { value, error } = useResource<DatasetPreview>(
    `/v1/datasets/${encodeURIComponent(dataset)}/preview?${query}`,
  )
  const total = value?.total_rows ?? 0
  return (
    <>
      <Problem error={error} />
      {model && <p class="muted">{t('previewHint')}</p>}
      {value?.data.map(({ index, raw, tokens, rejected_tokens: rejected, error: problem }) => (
        <article key={index} class="row">
          <h3>
            {t('row')} {index + 1}
          </h3>
          {problem && <p class="bad">{problem}</p>}
          {tokens ? <Tokens tokens={tokens} /> : <pre>{JSON.stringify(raw, null, 2)}</pre>}
          {rejected && (
            <>
              <h4>{t('rejected')}</h4>
              <Tokens tokens={rejected} />
            </>
          )}
        </article>
      ))}
      <p class="pager">
        <button
          type="button"
          class="quiet"
          disabled={offset === 0}
          onClick={() => setOffset(Math.max(0, offset - PAGE))}
        >
          {t('previous')}
        </button>
        <button
          type="button"
          class="quiet"
          disabled={offset + PAGE >= total}
          onClick={() => setOffset(offset + PAGE)}
        >
          {t('next')}
        </button>
      </p>
    </>
  )
}
