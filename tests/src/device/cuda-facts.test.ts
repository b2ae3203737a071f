import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CUDA_LIBRARIES, probeCuda } from '../../../src/device/cuda-facts.ts'
import { cudaProblems } from '../../../src/device/cuda-problems.ts'
import { Devices } from '../../../src/device/devices.ts'
import type { Binding } from '../../../src/device/install/binding.ts'
import { PROVIDER_FILES } from '../../../src/device/install/known-providers.ts'
import type { SelfTestResult } from '../../../src/device/test-device.ts'

const LIBRARIES = [CUDA_LIBRARIES.driver, ...CUDA_LIBRARIES.needed, CUDA_LIBRARIES.cudnn]
const L4 = 'GPU-5f3a, 580.82.07, 23034, 22560, NVIDIA L4'

let root: string
let binding: Binding
let env: NodeJS.ProcessEnv

/** A machine as the probe sees one: a driver's program on the path, libraries in a folder, the provider beside the binding. */
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'anneal-probe-'))
  for (const folder of ['bin', 'lib', 'binding']) mkdirSync(join(root, folder))
  binding = { version: '1.30.0', folder: join(root, 'binding'), platform: 'linux/x64' }
  env = { PATH: `${join(root, 'bin')}:${process.env.PATH}`, LD_LIBRARY_PATH: join(root, 'lib') }
  for (const name of LIBRARIES) writeFileSync(join(root, 'lib', name), '')
  installProvider('1.30.0')
  nvidiaSmi(L4)
})
afterEach(() => rmSync(root, { recursive: true }))

/** Writes an nvidia-smi that prints `table` and ends with `code`. */
function nvidiaSmi(table: string, code = 0): void {
  const program = join(root, 'bin', 'nvidia-smi')
  writeFileSync(program, `#!/bin/sh\ncat <<'END'\n${table}\nEND\nexit ${code}\n`)
  chmodSync(program, 0o755)
}

function installProvider(version: string): void {
  for (const name of PROVIDER_FILES) {
    const bytes = Buffer.alloc(9000, 0x41)
    bytes.write(`\0${version}\0`, 4000, 'latin1')
    writeFileSync(join(binding.folder, name), bytes)
  }
}

const remove = (...names: string[]) => {
  for (const name of names) rmSync(join(root, 'lib', name))
}
const found = async () => cudaProblems(await probeCuda(binding, env)).map(({ code }) => code)
const passed: SelfTestResult = { ok: true, reason: 'passed', milliseconds: 1, cpuMilliseconds: 10 }
const devices = (test: () => Promise<SelfTestResult> = async () => passed) =>
  new Devices({ probe: () => probeCuda(binding, env), test })
/** What a run hears that asks for CUDA. */
const refusal = (test?: () => Promise<SelfTestResult>) =>
  devices(test)
    .place('cuda')
    .then(
      () => 'it was placed',
      (error: Error) => error.message,
    )

const onLinux = process.platform === 'linux'

describe.skipIf(!onLinux)(
  `a machine with CUDA, as it is probed${onLinux ? '' : ' (skipped: Linux alone)'}`,
  () => {
    it('has nothing to complain of, and its GPU is found by name', async () => {
      expect(await found()).toEqual([])
      expect(await devices().place('cuda')).toMatchObject({
        name: 'cuda:0',
        env: { CUDA_VISIBLE_DEVICES: 'GPU-5f3a' },
        gpu: { name: 'NVIDIA L4', totalBytes: 23034 * 2 ** 20 },
      })
    })

    it('with too old a driver says which it has, which it needs and what to do', async () => {
      nvidiaSmi(L4.replace('580.82.07', '535.183.01'))
      expect(await found()).toEqual(['driver_too_old'])
      expect(await refusal()).toMatch(
        /device cuda cannot be used: The NVIDIA driver is 535\.183\.01; CUDA 13\.0 needs 580\.65\.06 or later\. Install a newer driver/,
      )
    })

    it('without cuDNN works, and is told where to get it', async () => {
      remove(CUDA_LIBRARIES.cudnn)
      const [problem] = cudaProblems(await probeCuda(binding, env))
      expect(problem).toMatchObject({ code: 'cudnn_missing', isOptional: true })
      expect(problem!.remedy).toContain('nvidia-cudnn-cu13')
      expect(await refusal()).toBe('it was placed')
    })

    it('without a library of CUDA names it, before anything is loaded', async () => {
      remove('libcublasLt.so.13')
      expect(await refusal()).toMatch(/does not find libcublasLt\.so\.13 of CUDA 13\. .*LD_LIBRARY_PATH/)
    })

    it('with a provider library of another version names both, since the runtime would load it without a word', async () => {
      installProvider('1.29.0')
      expect(await found()).toEqual(['provider_version'])
      expect(await refusal()).toMatch(
        /is of onnxruntime 1\.29\.0, the installed onnxruntime-node is 1\.30\.0\./,
      )
    })

    it('whose only GPU is lost says so in the words of the test, since the driver lists none', async () => {
      nvidiaSmi(
        'Unable to determine the device handle for GPU0000:3B:00.0: GPU is lost.  Reboot the system to recover this GPU',
        15,
      )
      const failed = {
        ...passed,
        ok: false,
        reason: 'CUDA failure 100: no CUDA-capable device is detected',
      }
      expect(await refusal(async () => failed)).toMatch(/cannot be used: CUDA failure 100: no CUDA-capable/)
    })

    it('of whose two GPUs one is lost goes on with the other, though the driver ends with an error', async () => {
      nvidiaSmi(`GPU-9b1c, 580.82.07, [GPU is lost], [GPU is lost], NVIDIA L4\n${L4}`, 15)
      expect(await devices().place('cuda')).toMatchObject({ name: 'cuda:1' })
      await expect(devices().place('cuda:0')).rejects.toThrow(/no cuda:0 here.*cuda:1 \(NVIDIA L4\)/)
    })
  },
)
