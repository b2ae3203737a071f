import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type RunningServer, startServer } from '../../src/main.ts'
import { loadSettings } from '../../src/settings.ts'
import { browserPath, launch } from './browser.ts'

const needs = browserPath ? '' : ' (skipped: no chromium is installed)'

const root = mkdtempSync(join(tmpdir(), 'anneal-console-'))
const data = join(import.meta.dirname, '../../data')
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const env = {
  ANNEAL_MODELS_DIR: join(root, 'models'),
  ANNEAL_DATA_DIR: join(root, 'data'),
  ANNEAL_SAVES_DIR: join(root, 'saves'),
  ANNEAL_PORT: '0',
}
const HOSTILE = '<img src=x onerror="window.hacked = true"><script>window.hacked = true</script>'

let server: RunningServer
let browser: Browser
let page: Page
let problems: string[]

beforeAll(async () => {
  if (!browserPath) return
  cpSync(join(data, 'models/anneal-tiny'), join(root, 'models/anneal-tiny'), { recursive: true })
  mkdirSync(join(root, 'data'))
  cpSync(join(data, 'anneal_identity.json'), join(root, 'data/anneal_identity.json'))
  const rows = [
    { instruction: HOSTILE, input: '', output: 'Harmless.' },
    { instruction: 'No answer here', input: '' },
  ]
  writeFileSync(join(root, 'data/hostile.json'), JSON.stringify(rows))
  writeFileSync(
    join(root, 'data/dataset_info.json'),
    JSON.stringify({
      anneal_identity: { file_name: 'anneal_identity.json' },
      hostile: { file_name: 'hostile.json' },
    }),
  )
  server = await start()
  browser = await launch()
})

afterAll(async () => {
  await browser?.close()
  await server?.close()
  rmSync(root, { recursive: true, force: true })
})

async function start(port = '0'): Promise<RunningServer> {
  const settings = await loadSettings({ env: { ...env, ANNEAL_PORT: port }, cwd: root })
  return startServer(settings, { logger: pino({ level: 'silent' }) })
}

beforeEach(async () => {
  if (!browserPath) return
  const context = await browser.newContext({ locale: 'en-US' })
  page = await context.newPage()
  problems = []
  page.on('pageerror', (error) => problems.push(error.message))
  page.on('console', (message) => {
    if (/Content Security Policy|refused to/i.test(message.text())) problems.push(message.text())
  })
})

afterEach(async () => {
  if (!browserPath) return
  await page.context().close()
  expect(problems).toEqual([])
})

const open = (place: string) => page.goto(`${server.url}/#/${place}`)

/** What axe-core finds that is serious or worse. */
async function seriousFindings(): Promise<string[]> {
  // A script element would be refused by the page's policy, as it should be; this goes in from outside.
  await page.evaluate(axe)
  return page.evaluate(`axe.run().then(({ violations }) => violations
    .filter(({ impact }) => impact === 'serious' || impact === 'critical')
    .map(({ id, nodes }) => id + ': ' + nodes[0].html))`)
}

describe.skipIf(!browserPath)(`the console${needs}`, () => {
  it('trains: estimate, start, live curve, and the same run after the page was closed', async () => {
    await open('train')
    await page.getByLabel('Dataset', { exact: true }).selectOption('anneal_identity')
    await page.getByLabel('Epochs').fill('2')
    await page.getByTestId('steps').waitFor()
    expect(await page.getByRole('region', { name: 'Command' }).textContent()).toContain('num_train_epochs=2')
    expect(await page.locator('mark').first().textContent()).not.toBe('')
    expect(await seriousFindings()).toEqual([])

    await page.getByRole('button', { name: 'Start training' }).click()
    await page.waitForURL(/#\/runs\/run-/)
    const { hash } = new URL(page.url())
    await page.getByTestId('progress').waitFor()
    await page.close()
    page = await browser.newPage()
    await page.goto(`${server.url}/${hash}`)
    await page.getByText('succeeded', { exact: true }).waitFor({ timeout: 90_000 })
    expect(await page.locator('.u-series').first().textContent()).not.toBe('')
    expect(await page.getByRole('region', { name: 'Log' }).textContent()).toContain('finished')
    expect(await seriousFindings()).toEqual([])

    await page.getByRole('button', { name: 'Evaluate' }).click()
    await page.getByRole('rowheader', { name: 'eval_loss' }).waitFor({ timeout: 90_000 })
  }, 180_000)

  it('lists runs, compares their curves, and deletes one only after asking', async () => {
    await open('runs')
    const id = (await page.locator('td a').first().textContent())!
    await page.getByLabel(`Compare curves of the chosen runs: ${id}`).check()
    await page.locator('.curve canvas').waitFor()
    expect(await seriousFindings()).toEqual([])
    await page.getByRole('button', { name: `Delete: ${id}` }).click()
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click()
    expect(await page.getByRole('link', { name: id }).count()).toBe(1)
  })

  it('chats with two models side by side, and shows token probabilities', async () => {
    await open('chat/anneal-tiny')
    await page.getByLabel('Two side by side').check()
    await page.getByText('Advanced').click()
    await page.getByLabel('Temperature').fill('0')
    await page.getByLabel('Longest answer (tokens)').fill('24')
    await page.getByLabel('Show probabilities of tokens').check()
    await page.getByLabel('Message').fill('Hello!')
    await page.getByRole('button', { name: 'Send' }).click()
    await page.getByText('tokens/s').nth(1).waitFor({ timeout: 50_000 })
    const [left, right] = await page.locator('.turn.assistant .content').allTextContents()
    expect(left).not.toBe('')
    expect(right).toBe(left) // the same model, greedily
    expect(await page.locator('.probabilities span').first().getAttribute('title')).toMatch(/\d %/)
    expect(await seriousFindings()).toEqual([])
  })

  it('merges a run, exports the merge, and explains why 4 bits are refused', async () => {
    await open('runs')
    const id = (await page.locator('td a').first().textContent())!
    await open(`export/${id}`)
    await page.getByText('merge it first').waitFor()
    await page.getByRole('button', { name: 'Merge', exact: true }).click()
    await page.getByText('Merged model').waitFor({ timeout: 50_000 })
    await page.getByRole('button', { name: /^merge-/ }).click()
    await page.getByLabel('Bits').selectOption('4')
    await page.getByRole('button', { name: 'Export', exact: true }).click()
    await page.getByText('models below 700 M are not exported at 4 bits').waitFor()
    await page.getByLabel('Bits').selectOption('16')
    await page.getByRole('button', { name: 'Export', exact: true }).click()
    await page.locator('summary').filter({ hasText: 'succeeded' }).first().click({ timeout: 50_000 })
    await page.getByRole('link', { name: 'model.safetensors' }).waitFor()
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('link', { name: 'config.json', exact: true }).click(),
    ])
    expect(readFileSync((await download.path())!, 'utf8')).toContain('"model_type"')
    expect(await seriousFindings()).toEqual([])
  })

  it('shows rows as text whatever they hold, and lists the bad ones', async () => {
    await open('datasets')
    await page.getByRole('button', { name: 'Preview hostile' }).click()
    await page.getByText('<img src=x').waitFor()
    await page.getByRole('button', { name: 'Check all rows' }).click()
    await page.locator('li').filter({ hasText: 'Row 2' }).waitFor()
    expect(await page.evaluate(`'hacked' in window`)).toBe(false)
    expect(await seriousFindings()).toEqual([])
  })

  it('uploads a dataset with mapped columns', async () => {
    await open('datasets')
    const rows = '{"question": "Who?", "answer": "Me."}\n'
    await page
      .getByLabel(/^File/)
      .setInputFiles({ name: 'faq.jsonl', mimeType: 'text/plain', buffer: Buffer.from(rows) })
    await page.getByText('Which key of a row is what?').click()
    await page.getByLabel('prompt', { exact: true }).fill('question')
    await page.getByLabel('response', { exact: true }).fill('answer')
    await page.getByRole('button', { name: 'Upload a dataset' }).click()
    await page.getByText('Done: faq').waitFor()
    await page.getByRole('button', { name: 'Preview faq' }).click()
    await page.locator('mark').filter({ hasText: 'Me.' }).waitFor()
  })

  it('fits a phone, speaks Chinese, turns dark, and is usable by keyboard', async () => {
    await page.setViewportSize({ width: 360, height: 740 })
    await open('train')
    await page.getByRole('button', { name: '中文' }).click()
    await page.getByRole('heading', { name: '训练' }).waitFor()
    await page.route('**/v1/datasets', async (route) => {
      const response = await route.fetch()
      const { data, ...list } = await response.json()
      const long = { ...data[0], name: 'greetings_of_everybody_who_lives_on_the_coast' }
      await route.fulfill({ response, json: { ...list, data: [...data, long] } })
    })
    for (const place of ['runs', 'chat', 'export', 'datasets', 'train']) {
      await open(place)
      if (place === 'datasets') await page.getByText('everybody_who_lives').first().waitFor()
      const overflow = await page.evaluate('document.documentElement.scrollWidth - innerWidth')
      expect(overflow, place).toBeLessThanOrEqual(0)
    }
    // An answer may still be on its way.
    await page.unrouteAll({ behavior: 'ignoreErrors' })
    await page.getByRole('button', { name: '明暗' }).click()
    expect(await page.evaluate('document.documentElement.dataset.theme')).toBe('dark')
    expect(await seriousFindings()).toEqual([])
    await page.getByRole('link', { name: '数据集' }).focus()
    await page.keyboard.press('Enter')
    await page.getByRole('heading', { name: '数据集', exact: true }).waitFor()
  })

  it('says that the server stopped, and goes on when it is back', async () => {
    await open('runs')
    await page.locator('td a').first().waitFor()
    const port = new URL(server.url).port
    await server.close()
    await page.getByText('The server does not answer').waitFor({ timeout: 20_000 })
    server = await start(port)
    await page.getByText('The server does not answer').waitFor({ state: 'hidden', timeout: 20_000 })
  })
})
