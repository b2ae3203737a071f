import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { SHARED } from '../shared.ts'
import { checkFamily } from './checks.ts'
import { Reference } from './reference.ts'

const golden = join(SHARED, 'golden')
const reason = existsSync(golden) ? '' : ' (skipped: the shared reference numbers are absent)'

describe.skipIf(reason !== '')(`PyTorch's numbers${reason}`, () => {
  const names =
    reason === '' ? readdirSync(golden).filter((name) => existsSync(join(golden, name, 'model'))) : []
  it.each(['llama', 'qwen3'])('%s with fp16 has gradients and losses within its bounds', async (name) => {
    const { checks } = await checkFamily(new Reference(join(golden, name)), null, { fp16: true })
    expect(checks.filter(({ name: what }) => /gradients|losses/.test(what)).length).toBeGreaterThan(2)
    expect(checks.filter(({ passed }) => !passed)).toEqual([])
  })

  for (const name of names) {
    it(`${name}: logits, gradients, loss curves, merges and greedy tokens are within their bounds`, async () => {
      const { checks } = await checkFamily(new Reference(join(golden, name)), null)
      expect(checks.length).toBeGreaterThan(8)
      expect(checks.filter(({ passed }) => !passed)).toEqual([])
    })
  }
})
