import { effect, signal } from '@preact/signals'
import { useEffect, useState } from 'preact/hooks'
import { apiKey, get } from './api.ts'
import { switchLanguage, t } from './i18n.ts'
import { ChatPage } from './pages/chat.tsx'
import { DatasetsPage } from './pages/datasets.tsx'
import { ExportPage } from './pages/export.tsx'
import { RunPage } from './pages/run.tsx'
import { RunsPage } from './pages/runs.tsx'
import { TrainPage } from './pages/train.tsx'
import { connected } from './parts/connection.ts'
import { Field } from './parts/form.tsx'

const PAGES = ['train', 'runs', 'chat', 'export', 'datasets'] as const
type Page = (typeof PAGES)[number]

const LABELS = {
  train: 'train',
  runs: 'runs',
  chat: 'chat',
  export: 'exportModels',
  datasets: 'datasets',
} as const

/** 'runs' and 'run-1' of #/runs/run-1. */
function place(): { page: Page; rest: string } {
  const [page = '', ...rest] = location.hash.replace(/^#\/?/, '').split('/')
  const known = PAGES.find((name) => name === page)
  return { page: known ?? 'train', rest: decodeURIComponent(rest.join('/')) }
}

const dark = signal(
  localStorage.getItem('anneal-theme') ??
    (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light'),
)
effect(() => {
  document.documentElement.dataset.theme = dark.value
})

function switchTheme(): void {
  dark.value = dark.value === 'dark' ? 'light' : 'dark'
  localStorage.setItem('anneal-theme', dark.value)
}

/** The whole page: head, the page that the address names, and what is wrong with the connection. */
export function Console() {
  const [where, setWhere] = useState(place)
  const [locked, setLocked] = useState(false)
  useEffect(() => {
    const moved = () => {
      setWhere(place())
      focusContent()
    }
    window.addEventListener('hashchange', moved)
    return () => window.removeEventListener('hashchange', moved)
  }, [])
  useEffect(() => {
    get('/v1/models').catch((error: { status?: number }) => setLocked(error.status === 401))
  }, [])
  return (
    <>
      <button type="button" class="skip" onClick={focusContent}>
        {t('skip')}
      </button>
      <header>
        <strong class="brand">Anneal</strong>
        <nav aria-label="Anneal">
          {PAGES.map((page) => (
            <a key={page} href={`#/${page}`} aria-current={where.page === page ? 'page' : undefined}>
              {t(LABELS[page])}
            </a>
          ))}
          <a href="/docs">{t('api')}</a>
        </nav>
        <div class="switches">
          <button type="button" class="quiet" onClick={switchLanguage}>
            {t('language')}
          </button>
          <button
            type="button"
            class="quiet"
            onClick={switchTheme}
            aria-label={t('theme')}
            title={t('theme')}
          >
            ◐
          </button>
        </div>
      </header>
      <div class="banner" role="status" hidden={connected.value}>
        {connected.value ? '' : t('offline')}
      </div>
      <main id="content" tabIndex={-1}>
        {locked ? <Unlock /> : <Current page={where.page} rest={where.rest} />}
      </main>
    </>
  )
}

function focusContent(): void {
  document.getElementById('content')?.focus()
}

function Current({ page, rest }: { page: Page; rest: string }) {
  if (page === 'runs') return rest === '' ? <RunsPage /> : <RunPage id={rest} key={rest} />
  if (page === 'chat') return <ChatPage model={rest} key={rest} />
  if (page === 'export') return <ExportPage model={rest} key={rest} />
  if (page === 'datasets') return <DatasetsPage />
  return <TrainPage />
}

function Unlock() {
  const [key, setKey] = useState('')
  const use = (event: Event) => {
    event.preventDefault()
    apiKey.set(key)
    location.reload()
  }
  return (
    <form class="card narrow" onSubmit={use}>
      <p>{t('keyNeeded')}</p>
      <Field label={t('key')}>
        {(id) => (
          <input
            id={id}
            type="password"
            autocomplete="off"
            value={key}
            onInput={(e) => setKey(e.currentTarget.value)}
          />
        )}
      </Field>
      <button type="submit">{t('use')}</button>
    </form>
  )
}
