/**
 * npm run bench:download [-- --gigabytes 2 --rounds 3]
 *
 * Downloads of one large file over loopback, side by side in one run with nginx (sendfile on) on the same file: one curl,
 * and 100 parallel ranges by one curl. Memory of our server before, after and at its peak. Needs nginx and curl.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { cpus, loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: { gigabytes: { type: 'string', default: '2' }, rounds: { type: 'string', default: '3' } },
})
const bytes = Number(values.gigabytes) * 1e9
const RANGES = 100
const ID = 'export-0123456789ab'
const NGINX_PORT = 18_180
const scratch = mkdtempSync(join(tmpdir(), 'anneal-download-'))
const folder = join(scratch, 'export')
const started: ChildProcess[] = []

/** A file of noise, which nothing on the way could compress. */
function writeLargeFile(): void {
  mkdirSync(folder)
  const block = Buffer.from(Uint32Array.from({ length: 1 << 20 }, (_, i) => Math.imul(i, 2654435761)).buffer)
  const descriptor = openSync(join(folder, 'model.safetensors'), 'w')
  for (let done = 0; done < bytes; done += block.length) {
    writeSync(descriptor, block, 0, Math.min(block.length, bytes - done))
  }
  closeSync(descriptor)
}

async function startAnneal(): Promise<{ url: string; pid: number }> {
  const args = ['--import', 'tsx', join(import.meta.dirname, 'download-server.ts'), scratch, folder, ID]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  started.push(child)
  const [line] = (await once(child.stdout!, 'data')) as [Buffer]
  return { url: `${String(line).trim()}/v1/exports/${ID}/files/model.safetensors`, pid: child.pid! }
}

async function startNginx(): Promise<{ url: string; pid: number }> {
  const config = join(scratch, 'nginx.conf')
  writeFileSync(
    config,
    `daemon off; worker_processes 1; pid ${scratch}/nginx.pid; error_log stderr crit;
     events { worker_connections 512; }
     http { access_log off; sendfile on; tcp_nopush on; client_body_temp_path ${scratch}/body;
       server { listen 127.0.0.1:${NGINX_PORT}; root ${folder}; } }`,
  )
  execFileSync('chmod', ['-R', 'a+rX', scratch])
  const child = spawn('nginx', ['-c', config, '-p', scratch], { stdio: 'ignore' })
  started.push(child)
  const url = `http://127.0.0.1:${NGINX_PORT}/model.safetensors`
  for (let attempt = 0; attempt < 50; attempt++) {
    if (
      await fetch(url, { method: 'HEAD' })
        .then(({ ok }) => ok)
        .catch(() => false)
    )
      return { url, pid: child.pid! }
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error('nginx does not answer')
}

/** Seconds that one curl takes for the whole file. */
function whole(url: string): number {
  const start = performance.now()
  execFileSync('curl', ['-sf', '-o', '/dev/null', url])
  return (performance.now() - start) / 1000
}

/** Seconds that one curl takes for the whole file in 100 ranges at once. */
function inRanges(url: string): number {
  const size = Math.ceil(bytes / RANGES)
  const config = Array.from({ length: RANGES }, (_, i) => {
    const [from, to] = [i * size, Math.min((i + 1) * size, bytes) - 1]
    return `url = "${url}"\nrange = "${from}-${to}"\noutput = "/dev/null"\nsilent\nfail\n`
  })
  const file = join(scratch, 'ranges.txt')
  writeFileSync(file, config.join('next\n'))
  const start = performance.now()
  execFileSync(
    'curl',
    ['-sf', '--parallel', '--parallel-immediate', '--parallel-max', String(RANGES), '-K', file],
    { stdio: 'ignore' },
  )
  return (performance.now() - start) / 1000
}

/** Resident memory now and at its peak, in bytes. */
function memory(pid: number): { now: number; peak: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  const read = (key: string) => Number(new RegExp(`${key}:\\s+(\\d+)`).exec(status)?.[1]) * 1024
  return { now: read('VmRSS'), peak: read('VmHWM') }
}

const median = (numbers: number[]) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)]!
const gigabytesPerSecond = (seconds: number[]) => Number((bytes / 1e9 / median(seconds)).toFixed(2))

try {
  writeLargeFile()
  const sides = { anneal: await startAnneal(), nginx: await startNginx() }
  const times = {
    whole: { anneal: [] as number[], nginx: [] as number[] },
    ranges: { anneal: [] as number[], nginx: [] as number[] },
  }
  const before = memory(sides.anneal.pid)
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const name of ['anneal', 'nginx'] as const) {
      times.whole[name].push(whole(sides[name].url))
      times.ranges[name].push(inRanges(sides[name].url))
    }
  }
  const after = memory(sides.anneal.pid)
  const report = (['whole', 'ranges'] as const).map((kind) => {
    const [anneal, nginx] = [gigabytesPerSecond(times[kind].anneal), gigabytesPerSecond(times[kind].nginx)]
    return {
      kind: kind === 'whole' ? 'one stream' : `${RANGES} parallel ranges`,
      anneal,
      nginx,
      ratio: Number((anneal / nginx).toFixed(2)),
    }
  })
  console.table(report)
  const megabytes = (value: number) => Math.round(value / 1e6)
  const memoryReport = {
    before: megabytes(before.now),
    after: megabytes(after.now),
    peak: megabytes(after.peak),
  }
  console.log('server memory in MB:', memoryReport)
  const load = Number(loadavg()[0]!.toFixed(1)) // of others too: ratios of a busy machine say little
  const machine = { cpu: cpus()[0]!.model, cores: cpus().length, node: process.version, load }
  const file = join(import.meta.dirname, 'results/download.json')
  writeFileSync(
    file,
    `${JSON.stringify({ machine, gigabytes: bytes / 1e9, report, memoryMegabytes: memoryReport }, null, 1)}\n`,
  )
} finally {
  for (const child of started) child.kill()
  rmSync(scratch, { recursive: true, force: true })
}
