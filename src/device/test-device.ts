import { type Device, formatDevice } from '../../engine/onnx/device.ts'
import type { SelfTestResult } from '../../engine/onnx/self-test.ts'
import { forkProgram } from '../fork-program.ts'

export type { SelfTestResult }

export interface TestOptions {
  /** What the child's environment has beside this process's own. */
  env?: Record<string, string> | undefined
  /** Ends the test. */
  signal?: AbortSignal
  /** The child's module, unless a test has its own. */
  entry?: URL
  timeLimitMs?: number
}

/** How a device is tried; a test has its own. */
export type DeviceTest = (device: Device, options: TestOptions) => Promise<SelfTestResult>

/** A driver that needs longer hangs. The first use of a GPU may compile for many seconds. */
const TIME_LIMIT_MS = 90_000
const STDERR_TAIL = 8000
const ENTRY = new URL('./self-test-child.ts', import.meta.url)

/**
 * Runs the engine's self-test in a process of its own, so that a driver that crashes, hangs or ends the process is a failed
 * test and nothing worse. Never throws.
 */
export function testInChild(device: Device, options: TestOptions = {}): Promise<SelfTestResult> {
  const { env, signal, entry = ENTRY, timeLimitMs = TIME_LIMIT_MS } = options
  const name = formatDevice(device)
  return new Promise((resolve) => {
    const child = forkProgram(entry, {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    })
    const end = () => child.kill('SIGKILL')
    signal?.addEventListener('abort', end, { once: true })
    let stderr = ''
    let answer: SelfTestResult | undefined
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      end()
    }, timeLimitMs)
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-STDERR_TAIL)
    })
    child.once('message', (result: SelfTestResult) => {
      answer = result
    })
    child.once('error', (error) => resolve(failed(`${name} could not be tried: ${error.message}`)))
    // 'close' follows the last of stderr, which has reasons that the binding keeps to itself.
    child.once('close', (code, killedBy) => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      if (answer) return resolve(answer.ok ? answer : failed(explainFailure(answer.reason, stderr)))
      const how = isLate
        ? `did not end within ${timeLimitMs / 1000} s`
        : `was ended by ${killedBy ?? `exit code ${code}`}`
      resolve(failed(`the self-test of ${name} ${how}`))
    })
    child.send(device, () => {})
  })
}

function failed(reason: string): SelfTestResult {
  return { ok: false, reason, milliseconds: undefined, cpuMilliseconds: undefined }
}

/**
 * The binding says 'Failed to load shared library' whatever the matter is, and the runtime's log on stderr why; a CUDA error
 * comes inside of pages of C++.
 */
export function explainFailure(reason: string, stderr: string): string {
  const load = /Failed to load library (\S+) with error: (?:\1: )?(.+)/.exec(stderr)
  if (load && /Failed to load shared library/.test(reason)) {
    return `${load[1]!.split('/').at(-1)} cannot be loaded: ${load[2]!.trim()}`
  }
  const known = /CUDA failure \d+: [^;]+|Failed to get a WebGPU adapter: [^)\n]+/.exec(reason)?.[0] ?? reason
  const vulkan = /Couldn't load Vulkan: .+/.exec(stderr)
  return (vulkan ? `${known.trim()} (${vulkan[0]})` : known).trim()
}
