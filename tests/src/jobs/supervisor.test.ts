import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { followEvents } from '../../../src/jobs/follow.ts'
import { identityOf, isAlive } from '../../../src/jobs/process-identity.ts'
import { recoverJobs } from '../../../src/jobs/recover.ts'
import type { JobSupervisor } from '../../../src/jobs/supervisor.ts'
import type { JobEventRow } from '../../../src/jobs/types.ts'
import { loaderArguments } from '../loader-arguments.ts'
import { atRest, fakeJob, fakeSupervisor, type OpenQueue, openQueue, self, untilEvent } from './support.ts'

let open: OpenQueue
let supervisor: JobSupervisor

beforeEach(() => {
  open = openQueue()
  supervisor = fakeSupervisor(open)
})

afterEach(async () => {
  await supervisor.drain()
  open.close()
})

const isAtWork = (event: JobEventRow) => event.type === 'log'

describe('JobSupervisor', () => {
  it('runs a queued job in a child process and keeps its result, progress and log', async () => {
    const { id } = await open.queue.submit(fakeJob('finish', { steps: 3 }))
    supervisor.start()
    const job = await atRest(open, id)
    expect(job).toMatchObject({
      status: 'succeeded',
      result: { done: true },
      progress: { step: 3, total_steps: 3 },
      attempts: 1,
      ownerPid: null,
      workerPid: null,
    })
    const types = (await open.queue.eventsAfter(id, 0, 100)).map((event) => event.type)
    expect(types).toEqual(['queued', 'started', 'progress', 'progress', 'progress', 'log', 'succeeded'])
    expect(readFileSync(join(open.folder, id, 'running_log.txt'), 'utf8')).toBe(`log of ${id}\n`)
  })

  it('runs jobs of one kind in the order of their creation, one at a time', async () => {
    const ids: string[] = []
    for (let n = 0; n < 3; n++) ids.push((await open.queue.submit(fakeJob('finish'))).id)
    supervisor.start()
    const jobs = []
    for (const id of ids) jobs.push(await atRest(open, id))
    for (let n = 1; n < jobs.length; n++) {
      expect(jobs[n]!.startedAt!.getTime()).toBeGreaterThanOrEqual(jobs[n - 1]!.finishedAt!.getTime())
    }
  })

  it("keeps a task's error with its code and field", async () => {
    const { id } = await open.queue.submit(fakeJob('throw'))
    supervisor.start()
    expect((await atRest(open, id)).error).toEqual({
      kind: 'invalid',
      code: 'bad_row',
      message: 'Row 7 is wrong.',
      param: 'dataset',
    })
  })

  it('fails a job whose child crashes, with exit code and the end of its log', async () => {
    const { id } = await open.queue.submit(fakeJob('crash'))
    supervisor.start()
    const { status, error } = await atRest(open, id)
    expect(status).toBe('failed')
    expect(error?.code).toBe('worker_crashed')
    expect(error?.message).toMatch(/exit code 7.*last words/s)
  })

  it('fails a job whose child is killed from outside, and resumes it on demand', async () => {
    const { id } = await open.queue.submit(fakeJob('until-stopped'))
    supervisor.start()
    const { data } = await untilEvent(open, id, isAtWork)
    process.kill(Number(data.pid), 'SIGKILL')
    expect((await atRest(open, id)).error?.message).toMatch(/SIGKILL/)
    await open.queue.resume(id)
    await untilEvent(open, id, (event) => event.data.attempt === 2 && isAtWork(event))
  })

  it('cancels a running job by asking its child to stop', async () => {
    const { id } = await open.queue.submit(fakeJob('until-stopped'))
    supervisor.start()
    await untilEvent(open, id, isAtWork)
    expect((await open.queue.requestCancel(id))?.status).toBe('cancelling')
    expect((await atRest(open, id)).status).toBe('cancelled')
  })

  it('kills a child that does not stop within the grace period', async () => {
    supervisor = fakeSupervisor(open, { cancelGraceMs: 10 })
    const { id } = await open.queue.submit(fakeJob('deaf'))
    supervisor.start()
    const { data } = await untilEvent(open, id, isAtWork)
    await open.queue.requestCancel(id)
    expect((await atRest(open, id)).status).toBe('cancelled')
    expect(identityOf(Number(data.pid))).toBeUndefined()
  })

  it('puts running jobs back into the queue when it drains, and does not start waiting ones', async () => {
    const running = await open.queue.submit(fakeJob('until-stopped'))
    const waiting = await open.queue.submit(fakeJob('finish'))
    supervisor.start()
    await untilEvent(open, running.id, isAtWork)
    await supervisor.drain()
    expect(await open.queue.get(running.id)).toMatchObject({ status: 'queued', ownerPid: null })
    expect(await open.queue.get(waiting.id)).toMatchObject({ status: 'queued', attempts: 0 })
  })

  it('leaves a job alone that another process keeps for itself', async () => {
    const own = await open.queue.submit(fakeJob('finish', { owner: { pid: 1, startedAt: 'elsewhere' } }))
    const free = await open.queue.submit(fakeJob('finish'))
    supervisor.start()
    await atRest(open, free.id)
    expect((await open.queue.get(own.id))?.status).toBe('queued')
  })

  it('runs its own job and nothing else with runOwn', async () => {
    const own = await open.queue.submit(fakeJob('finish', { owner: self }))
    const free = await open.queue.submit(fakeJob('finish'))
    expect((await supervisor.runOwn(own.id)).status).toBe('succeeded')
    expect((await open.queue.get(free.id))?.status).toBe('queued')
  })
})

describe('followEvents', () => {
  it('gives each of thousands of events once and in order, across replay, live and reconnection', async () => {
    const { id } = await open.queue.submit(fakeJob('finish', { steps: 3000 }))
    const seen: number[] = []
    const steps: unknown[] = []
    supervisor.start()
    let reconnect = true
    while (reconnect) {
      reconnect = false
      for await (const event of followEvents(
        open.queue,
        id,
        seen.at(-1) ?? 0,
        new AbortController().signal,
      )) {
        seen.push(event.seq)
        if (event.type === 'progress') steps.push(event.data.step)
        if (seen.length % 700 === 0) {
          reconnect = true
          break
        }
      }
    }
    expect(seen).toEqual(Array.from({ length: 3004 }, (_, index) => index + 1))
    expect(steps).toEqual(Array.from({ length: 3000 }, (_, index) => index + 1))
  })

  it('refuses an unknown job before the first event', async () => {
    const events = followEvents(open.queue, 'run-000000000000', 0, new AbortController().signal)
    await expect(events.next()).rejects.toMatchObject({ kind: 'not_found' })
  })

  it('ends when its reader goes away', async () => {
    const { id } = await open.queue.submit(fakeJob('finish'))
    const reader = new AbortController()
    const events = followEvents(open.queue, id, 0, reader.signal)
    expect((await events.next()).value).toMatchObject({ type: 'queued', seq: 1 })
    const next = events.next()
    reader.abort()
    expect((await next).done).toBe(true)
  })
})

describe('a server that is killed', () => {
  let server: ChildProcess | undefined

  afterEach(() => void server?.kill('SIGKILL'))

  async function startDoomedServer(script: string): Promise<[ChildProcess, number]> {
    const module = new URL('./doomed-server.ts', import.meta.url)
    const args = [...loaderArguments(module), fileURLToPath(module), open.folder, script]
    server = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    const [line] = await once(server.stdout!, 'data')
    return [server, JSON.parse(String(line)).pid]
  }

  it('takes its child with it, and its job goes on at the next start', async () => {
    const [doomed, childPid] = await startDoomedServer('until-stopped')
    const child = identityOf(childPid)!
    expect(await recoverJobs(open.queue)).toEqual([])
    doomed.kill('SIGKILL')
    await once(doomed, 'exit')
    await vi.waitFor(() => expect(isAlive(child)).toBe(false), { timeout: 20_000, interval: 10 })
    const [recovered] = await recoverJobs(open.queue)
    expect(recovered).toMatchObject({ id: 'run-00000000beef', status: 'queued', crashes: 1, ownerPid: null })
    supervisor.start()
    await untilEvent(open, 'run-00000000beef', (event) => event.data.attempt === 2 && isAtWork(event))
  })

  it('has its leftover child killed before the job is given to another', async () => {
    const stray = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { stdio: 'ignore' })
    const job = await open.queue.submit(fakeJob('finish'))
    await open.queue.claim('train', { pid: 2 ** 22 + 1, startedAt: 'dead' })
    await open.queue.setWorker(job.id, identityOf(stray.pid!)!)
    const gone = once(stray, 'exit')
    expect(await recoverJobs(open.queue)).toHaveLength(1)
    await gone
  })
})

describe('recoverJobs', () => {
  const dead = { pid: 2 ** 22 + 1, startedAt: 'dead' }

  it('brings a job to rest that was being cancelled', async () => {
    const { id } = await open.queue.submit(fakeJob('finish'))
    await open.queue.claim('train', dead)
    await open.queue.requestCancel(id)
    expect(await recoverJobs(open.queue)).toMatchObject([{ id, status: 'cancelled' }])
  })

  it('fails a job that was running each time its server died', async () => {
    const { id } = await open.queue.submit(fakeJob('finish'))
    for (let crash = 1; crash <= 4; crash++) {
      await open.queue.claim('train', dead)
      expect(await recoverJobs(open.queue)).toMatchObject([{ status: 'queued', crashes: crash }])
    }
    await open.queue.claim('train', dead)
    expect(await recoverJobs(open.queue)).toMatchObject([{ id, status: 'failed' }])
  })

  it('does not take a later process with the same id for the owner', async () => {
    await open.queue.submit(fakeJob('finish'))
    await open.queue.claim('train', { pid: process.pid, startedAt: 'another time' })
    expect(await recoverJobs(open.queue)).toMatchObject([{ status: 'queued' }])
  })
})
