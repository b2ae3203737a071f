import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { anneal, createWorkplace } from './run-anneal.ts'

const COMMANDS = [
  'serve',
  'train',
  'preview',
  'chat',
  'merge',
  'export',
  'datasets',
  'models',
  'doctor',
  'demo',
]

describe('anneal', () => {
  const place = createWorkplace()
  const { env } = place
  afterAll(() => rmSync(place.root, { recursive: true, force: true }))

  it('lists every command in its help, also when called without words', async () => {
    const [help, bare] = await Promise.all([anneal(['--help']), anneal([])])
    expect(help.code).toBe(0)
    for (const command of COMMANDS) expect(help.stdout).toContain(`\n  ${command}`)
    expect(bare).toEqual(help)
  })

  it('prints its version', async () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, '../../../package.json'), 'utf8'))
    expect((await anneal(['--version'])).stdout.trim()).toBe(version)
  })

  it('answers 2 and one line of usage for unknown commands, options and missing arguments', async () => {
    const wrong = [
      ['tarin'],
      ['models', '--yaml'],
      ['chat'],
      ['merge'],
      ['chat', 'x', '--temperature', 'hot'],
    ]
    const results = await Promise.all(wrong.map((words) => anneal(words, { env })))
    for (const [index, { code, stdout, stderr }] of results.entries()) {
      expect([wrong[index], code, stdout]).toEqual([wrong[index], 2, ''])
      expect(stderr).toMatch(/^anneal: /)
      expect(stderr).not.toContain('    at ')
    }
  })

  it('answers 1 and one line naming the field for wrong configurations', async () => {
    const { code, stderr } = await anneal(['preview', 'model=anneal-tiny', 'dataset=a', 'lora_rang=8'], {
      env,
    })
    expect(code).toBe(1)
    expect(stderr).toBe('anneal: Unknown field `lora_rang`. Did you mean `lora_rank`?\n')
  })

  it('shows the stack only with ANNEAL_DEBUG=1', async () => {
    const words = ['chat', 'nobody', '--prompt', 'Hi']
    const quiet = await anneal(words, { env })
    expect(quiet.code).toBe(1)
    expect(quiet.stderr).toMatch(/^anneal: The model "nobody" does not exist\..*\n$/)
    const loud = await anneal(words, { env: { ...env, ANNEAL_DEBUG: '1' } })
    expect(loud.code).toBe(1)
    expect(loud.stderr).toContain('    at ')
  })

  it('lists models and datasets as JSON on stdout', async () => {
    const models = await anneal(['models', '--json'], { env })
    expect(JSON.parse(models.stdout)).toMatchObject([{ id: 'anneal-tiny', kind: 'base' }])
    const datasets = await anneal(['datasets', '--json'], { env })
    expect(JSON.parse(datasets.stdout)).toContainEqual(
      expect.objectContaining({ name: 'anneal_identity', formatting: 'alpaca', error: null }),
    )
  })

  it('lists datasets whose data is on a hub apart, as LLaMA-Factory has many', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-hub-sets-'))
    const info = { here: { file_name: 'here.json' }, there: { hf_hub_url: 'org/there' } }
    writeFileSync(join(folder, 'dataset_info.json'), JSON.stringify(info))
    writeFileSync(join(folder, 'here.json'), '[{"instruction": "Hi", "output": "Hello"}]')
    const { stdout, stderr } = await anneal(['datasets'], { env: { ...env, ANNEAL_DATA_DIR: folder } })
    expect(stdout).toMatch(/^here /m)
    expect(stdout).not.toMatch(/there/)
    expect(stderr).toMatch(/^1 more on a hub/)
  })

  it('converts a dataset and refuses to do it twice', async () => {
    const first = await anneal(['datasets', 'convert', 'lighthouse_qa'], { env })
    expect(first).toMatchObject({ code: 0, stderr: '' })
    const rows = JSON.parse(readFileSync(join(place.data, 'lighthouse_qa_alpaca.json'), 'utf8'))
    expect(Object.keys(rows[0])).toEqual(['instruction', 'output'])
    const second = await anneal(['datasets', 'convert', 'lighthouse_qa'], { env })
    expect(second.code).toBe(1)
    expect(second.stderr).toContain('already a dataset named lighthouse_qa_alpaca')
  })

  it('previews a run without starting it, from a file and pairs', async () => {
    const file = join(place.root, 'run.yaml')
    writeFileSync(file, 'model_name_or_path: anneal-tiny\ndataset: anneal_identity\nnum_train_epochs: 3\n')
    const { code, stdout } = await anneal(['train', file, 'num_train_epochs=2', '--preview'], { env })
    expect(code).toBe(0)
    expect(stdout).toContain('Steps     20, 10 an epoch')
    expect(stdout).toContain('num_train_epochs: 2')
    expect(stdout).toContain('⟦I am Juniper')
    expect(existsSync(join(place.saves, 'anneal-tiny'))).toBe(false)
  })

  it('chats with a folder, a question at a time, from standard input', async () => {
    const model = join(place.models, 'anneal-tiny')
    const words = ['chat', model, '--max-tokens', '4', '--temperature', '0']
    const { code, stdout } = await anneal(words, { env, input: 'Hello\n/clear\nHello\n/exit\nnever\n' })
    expect(code).toBe(0)
    const [first, second, ...rest] = stdout.trimEnd().split('\n')
    expect(first).toMatch(/^[a-z]{1,4}$/)
    expect(second).toBe(first)
    expect(rest).toEqual([])
  })

  it('stops a run with a checkpoint at Ctrl-C, goes on from it, and talks to what came out', async () => {
    const folder = join(place.root, 'run')
    const words = ['model=anneal-tiny', 'dataset=anneal_identity', `output_dir=${folder}`, 'save_steps=1000']
    let interrupted = false
    const stopped = await anneal(['train', ...words, 'max_steps=100000'], {
      env,
      watch(stderr, kill) {
        if (interrupted || !stderr.includes('% ')) return
        interrupted = true
        kill('SIGINT')
      },
    })
    expect(stopped.code).toBe(130)
    expect(stopped.stderr).toMatch(/Saved checkpoint-\d+/)
    const step = Number(/Saved checkpoint-(\d+)/.exec(stopped.stderr)?.[1])
    const resumed = await anneal(['train', ...words, `max_steps=${step + 3}`, '--json'], { env })
    expect(resumed.stderr).toContain(`from step ${step}`)
    const run = JSON.parse(resumed.stdout) as { id: string; status: string; progress: { step: number } }
    expect(run).toMatchObject({ status: 'succeeded', progress: { step: step + 3 } })
    const asked = [
      'chat',
      run.id,
      '--checkpoint',
      String(step),
      '--prompt',
      'Hi',
      '--max-tokens',
      '2',
      '--json',
    ]
    expect(JSON.parse((await anneal(asked, { env })).stdout)).toMatchObject({
      model: `${run.id}:ckpt-step-${step}`,
    })
  })

  it('merges and exports, also into a folder of the user, and refuses what the policy refuses', async () => {
    const words = ['model=anneal-tiny', 'dataset=anneal_identity', 'max_steps=2', '--json']
    const { id } = JSON.parse((await anneal(['train', ...words], { env })).stdout)
    const output = join(place.root, 'merged')
    const merged = await anneal(['merge', id, '--output', output, '--json'], { env })
    expect(merged.code).toBe(0)
    expect(existsSync(join(output, 'model.safetensors'))).toBe(true)
    const again = await anneal(['merge', id, '--output', output], { env })
    expect(again).toMatchObject({ code: 1, stderr: `anneal: ${output} exists and is not empty. (output)\n` })

    const { id: merge } = JSON.parse(merged.stdout)
    const exported = await anneal(['export', merge, '--json'], { env })
    expect(JSON.parse(exported.stdout).files.map((file: { path: string }) => file.path)).toContain(
      'model.safetensors',
    )
    const refused = await anneal(['export', merge, '--bits', '2'], { env })
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('Exports of 2 bits are refused')
    expect((await anneal(['export', id], { env })).stderr).toContain('merge the adapter first')
  })

  it('finds nothing wrong with a good installation', async () => {
    const { code, stdout } = await anneal(['doctor'], { env })
    expect([code, stdout.match(/^FAIL/m)]).toEqual([0, null])
  })
})
