import { describe, expect, it } from 'vitest'
import { FolderLeases } from '../../../src/models/leases.ts'

const LONG = 60_000

describe('FolderLeases', () => {
  it('does the work at once when nobody reads', async () => {
    const leases = new FolderLeases()
    leases.acquire('/a')()
    leases.acquire('/other')
    let done = false
    await leases.withoutReaders('/a', LONG, async () => {
      done = true
    })
    expect(done).toBe(true)
  })

  it('waits for the last reader, lets no new one in meanwhile, and opens the name again', async () => {
    const leases = new FolderLeases()
    const [first, second] = [leases.acquire('/a'), leases.acquire('/a')]
    const steps: string[] = []
    const work = leases.withoutReaders('/a', LONG, async () => {
      steps.push('work')
    })
    expect(() => leases.acquire('/a')).toThrow(/being deleted/)
    await expect(leases.withoutReaders('/a', LONG, async () => {})).rejects.toMatchObject({
      kind: 'conflict',
    })
    first()
    first()
    expect(leases.readers('/a')).toBe(1)
    steps.push('last reader')
    second()
    await work
    expect(steps).toEqual(['last reader', 'work'])
    leases.acquire('/a')()
  })

  it('gives up when a reader stays, without having done anything', async () => {
    const leases = new FolderLeases()
    const release = leases.acquire('/a')
    let done = false
    const work = leases.withoutReaders('/a', 1, async () => {
      done = true
    })
    await expect(work).rejects.toMatchObject({ kind: 'conflict', code: 'model_in_use' })
    expect(done).toBe(false)
    release()
    leases.acquire('/a')
  })
})
