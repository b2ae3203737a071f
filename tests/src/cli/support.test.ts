import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CommanderError } from 'commander'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import type { TrainingRun } from '../../../routes/services.ts'
import { readRenames } from '../../../src/cli/datasets.ts'
import { checkOutput } from '../../../src/cli/support/copy-result.ts'
import { reportFailure, UsageError } from '../../../src/cli/support/failure.ts'
import { formatBytes, formatSeconds, formatSmall, formatTable } from '../../../src/cli/support/format.ts'
import { readModelTarget } from '../../../src/cli/support/model-target.ts'
import { lineView, taskPoint, trainingPoint } from '../../../src/cli/support/progress.ts'
import { readNumber } from '../../../src/cli/support/read-number.ts'
import { renderTokens } from '../../../src/cli/support/render-tokens.ts'
import { summaryOf } from '../../../src/cli/train.ts'
import { loadSettings } from '../../../src/settings.ts'

describe('reportFailure', () => {
  const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  afterEach(() => written.mockClear())

  it('prints one line with the field at fault and answers 1', () => {
    expect(reportFailure(new EngineError('invalid', 'bad', 'Too large: 9.', { param: 'lora_rank' }))).toBe(1)
    expect(written.mock.calls).toEqual([['anneal: Too large: 9. (lora_rank)\n']])
  })

  it('does not repeat a field that the message names', () => {
    reportFailure(new EngineError('invalid', 'bad', '`seed` must be whole.', { param: 'seed' }))
    expect(written.mock.calls).toEqual([['anneal: `seed` must be whole.\n']])
  })

  it('answers 2 for wrong usage, 130 for a cancelled job and 0 for help', () => {
    expect(reportFailure(new UsageError('What?'))).toBe(2)
    expect(reportFailure(new CommanderError(1, 'commander.unknownOption', 'unknown option'))).toBe(2)
    expect(reportFailure(new EngineError('cancelled', 'job_cancelled', 'Stopped.'))).toBe(130)
    expect(reportFailure(new CommanderError(0, 'commander.help', 'help'))).toBe(0)
  })

  it('says that an unknown error is unexpected, without its stack', () => {
    expect(reportFailure(new TypeError('x is not a function'))).toBe(1)
    expect(written.mock.calls.flat().join('')).toBe(
      'anneal: unexpected error: x is not a function. ANNEAL_DEBUG=1 shows where it comes from.\n',
    )
  })
})

describe('format', () => {
  it('shows durations, sizes and small numbers shortly', () => {
    expect([0.4, 59, 60, 187, 7500].map(formatSeconds)).toEqual(['0s', '59s', '1m 00s', '3m 07s', '2h 05m'])
    expect([0, 999, 1000, 8_400_000, 999_960_000].map(formatBytes)).toEqual([
      '0 B',
      '999 B',
      '1.0 kB',
      '8.4 MB',
      '1.0 GB',
    ])
    expect([0, 1e-4, 3.24e-5].map(formatSmall)).toEqual(['0', '1e-4', '3.2e-5'])
  })

  it('aligns the columns of a table', () => {
    expect(
      formatTable([
        ['a', 'bb'],
        ['ccc', 'd'],
      ]),
    ).toBe('a    bb\nccc  d')
  })
})

describe('progress', () => {
  it('shows step, loss, learning rate, speed and remaining time of a run', () => {
    const data = { step: 3, total_steps: 10, loss: 1.5, learning_rate: 1e-4, tokens_per_second: 812.4 }
    expect(trainingPoint({ ...data, remaining_seconds: 75 })).toEqual({
      value: 3,
      total: 10,
      unit: 'step ',
      details: ' | loss 1.5000 | lr 1e-4 | 812 tokens/s | 1m 15s left',
    })
    expect(trainingPoint({ message: 'no step' })).toBeUndefined()
  })

  it('shows a merge or export in hundredths', () => {
    expect(taskPoint({ fraction: 0.5, message: 'writing', remaining_seconds: null })).toEqual({
      value: 50,
      total: 100,
      unit: '',
      details: ' | writing',
    })
  })

  it('writes plain lines, at most one for a twentieth of the way', () => {
    const lines: string[] = []
    const view = lineView((line) => lines.push(line))
    for (let value = 1; value <= 100; value++) view.update({ value, total: 100, unit: 'step ', details: '' })
    expect(lines).toHaveLength(21)
    expect(lines.at(-1)).toBe('100% step 100/100')
  })
})

describe('readModelTarget', () => {
  it('takes a plain word as an id', async () => {
    const settings = await loadSettings({ env: {} })
    const target = readModelTarget('run-0123456789ab:ckpt-step-3')
    expect(target.id).toBe('run-0123456789ab:ckpt-step-3')
    expect(target.widen(settings)).toEqual(settings)
  })

  it('takes a folder by its name and looks beside it first', async () => {
    const parent = mkdtempSync(join(tmpdir(), 'anneal-cli-'))
    mkdirSync(join(parent, 'own-model'))
    writeFileSync(join(parent, 'own-model', 'config.json'), '{}')
    const target = readModelTarget(join(parent, 'own-model'))
    expect(target.id).toBe('own-model')
    const { directories } = target.widen(await loadSettings({ env: {} }))
    expect(directories.models[0]).toBe(parent)
  })

  it('refuses a path without a model', () => {
    expect(() => readModelTarget('./nowhere')).toThrow('is no model folder: it has no config.json.')
  })
})

describe('words', () => {
  it('reads renames as old=new', () => {
    expect(readRenames(['query=instruction', 'response=output'])).toEqual({
      query: 'instruction',
      response: 'output',
    })
    expect(() => readRenames(['query'])).toThrow('--rename takes old=new')
    expect(() => readRenames(['a=b=c'])).toThrow('got a=b=c')
  })

  it('reads numbers inside their range and names the option otherwise', () => {
    const atLeastZero = (value: number) => value >= 0
    expect(readNumber('--temperature', '0.5', atLeastZero)).toBe(0.5)
    expect(readNumber('--temperature', undefined, atLeastZero)).toBeUndefined()
    for (const text of ['-1', 'warm', '']) {
      expect(() => readNumber('--temperature', text, atLeastZero)).toThrow('--temperature does not take')
    }
  })
})

describe('renderTokens', () => {
  it('marks each learned stretch once', () => {
    const tokens = [
      { text: 'Hi', trained: false },
      { text: ' I', trained: true },
      { text: ' am', trained: true },
      { text: '.', trained: false },
    ]
    expect(renderTokens(tokens, false)).toBe('Hi⟦ I am⟧.')
  })
})

describe('checkOutput', () => {
  it('takes a missing or empty folder and refuses one that holds something', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'anneal-cli-'))
    await checkOutput(folder)
    await checkOutput(join(folder, 'missing'))
    writeFileSync(join(folder, 'kept.txt'), 'kept')
    await expect(checkOutput(folder)).rejects.toThrow('exists and is not empty')
  })
})

describe('the summary of a finished run', () => {
  const summary = (stage: string) => {
    const run = {
      id: 'run-00000000000a',
      stage,
      config: { finetuning_type: 'lora' },
    } as unknown as TrainingRun
    return summaryOf({ run, folder: '/saves/run' })
  }

  it('says how to chat with it, but not with a reward model, which writes no answers', () => {
    expect(summary('sft')).toContain('anneal chat run-00000000000a')
    expect(summary('rm')).toContain('/saves/run/value_head.safetensors')
    expect(summary('rm')).not.toMatch(/anneal (chat|merge)/)
  })
})
