import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { EngineError } from '../../../engine/errors.ts'
import type { Placement } from '../../../src/device/devices.ts'
import type { JobPlaces } from '../../../src/jobs/job-run.ts'
import type { JobSupervisor } from '../../../src/jobs/supervisor.ts'
import { atRest, fakeJob, fakeSupervisor, type OpenQueue, openQueue, untilEvent } from './support.ts'

/** WebGPU stands in for GPUs; what matters here is only that it is not the CPU. */
const gpu = (name: string): Placement => ({ device: { kind: 'webgpu' }, name, env: { STAND_IN: name } })
const gone = () =>
  new EngineError('unsupported', 'device_unavailable', 'device cuda:0 cannot be used: it fell off.')

let open: OpenQueue
let supervisor: JobSupervisor
let released: string[]

beforeEach(() => {
  open = openQueue()
})
afterEach(async () => {
  await supervisor.drain()
  open.close()
})

/** Places jobs on what `answers` says, one after another; the last answer is for ever. */
function start(answers: (Placement | EngineError)[], works: boolean): void {
  let asked = 0
  released = []
  const places: JobPlaces = {
    retryMs: 20,
    release: ({ name }) => released.push(name),
    retest: async () => works,
    async place() {
      const answer = answers[Math.min(asked++, answers.length - 1)]!
      if (answer instanceof EngineError) throw answer
      return answer
    },
  }
  supervisor = fakeSupervisor(open, { places })
  supervisor.start()
}

/** Submits a job that waits at its first start, and kills its process there as a broken driver would. */
async function killAtWork(): Promise<string> {
  const { id } = await open.queue.submit(fakeJob('on-a-device'))
  const { data } = await untilEvent(open, id, (event) => event.type === 'log')
  process.kill(data.pid as number, 'SIGKILL')
  return id
}

const messages = async (id: string) =>
  (await open.queue.eventsAfter(id, 0, 100)).map(({ type, message }) => `${type}: ${message}`).join('\n')

describe('a job whose device is lost', () => {
  it('sees its own device alone, and goes on with what it has saved on another one', async () => {
    start([gpu('cuda:0'), gpu('cuda:1')], false)
    const job = await atRest(open, await killAtWork())
    expect(job).toMatchObject({
      status: 'succeeded',
      result: { device: 'cuda:1', visible: 'cuda:1', attempt: 2 },
    })
    expect(released).toEqual(['cuda:0', 'cuda:1'])
    const told = await messages(job.id)
    expect(told).toMatch(/started: Started on cuda:0\./)
    expect(told).toMatch(/warning: cuda:0 failed under the job.*SIGKILL/)
    expect(told).toMatch(/started: Started again on cuda:1\./)
  })

  it('waits where there is no other, and goes on when it is back', async () => {
    start([gpu('cuda:0'), gone(), gone(), gone(), gpu('cuda:0')], false)
    const job = await atRest(open, await killAtWork())
    expect(job).toMatchObject({ status: 'succeeded', result: { device: 'cuda:0', attempt: 2 } })
    const told = await messages(job.id)
    expect(told.match(/Waiting\. .*it fell off/g)).toHaveLength(1)
  })

  it('can be cancelled while it waits', async () => {
    start([gpu('cuda:0'), gone()], false)
    const id = await killAtWork()
    await untilEvent(open, id, ({ message }) => message.startsWith('Waiting.'))
    await open.queue.requestCancel(id)
    expect(await atRest(open, id)).toMatchObject({ status: 'cancelled' })
  })

  it('goes back into the queue when the server ends while it waits', async () => {
    start([gpu('cuda:0'), gone()], false)
    const id = await killAtWork()
    await untilEvent(open, id, ({ message }) => message.startsWith('Waiting.'))
    await supervisor.drain()
    expect(await open.queue.get(id)).toMatchObject({ status: 'queued', ownerPid: null })
  })
})

describe('a job', () => {
  it('fails with its crash where the device still works', async () => {
    start([gpu('cuda:0')], true)
    const job = await atRest(open, await killAtWork())
    expect(job).toMatchObject({ status: 'failed', error: { code: 'worker_crashed' } })
  })

  it('is refused where its device is absent from the beginning', async () => {
    start([gone()], true)
    const { id } = await open.queue.submit(fakeJob('finish'))
    expect(await atRest(open, id)).toMatchObject({
      status: 'failed',
      error: { code: 'device_unavailable', message: expect.stringContaining('fell off') },
    })
  })
})
