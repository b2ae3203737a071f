/**
 * npm run parity -- FOLDER [--family NAME] [--models FOLDER] [--device cpu|webgpu|cuda] [--fp16 | --bf16]
 *
 * Compares the engine with numbers from PyTorch, transformers and PEFT, family by family: prints each deviation with
 * its bound and exits 1 when one is above it. Families and adapter kinds that the engine doesn't do are counted as
 * unsupported, never as passed. A folder of a real model has no weights of its own; they are looked for in --models
 * (a folder with NAME/ inside, or with an unpack.mjs that writes one). Without a GPU, --device webgpu runs on the
 * SwiftShader of Debian's chromium package, where that is installed. --fp16 trains with what layers keep as float16. --bf16
 * compares runs with products of bfloat16, ours and PEFT's, with float32's; without a GPU, as CUDA would compute them.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { EngineError } from '../../engine/errors.ts'
import { familyOf } from '../../engine/models/index.ts'
import { readRawConfig } from '../../engine/models/raw-config.ts'
import { type Device, parseDevice } from '../../engine/onnx/device.ts'
import { useSoftwareGpu } from '../webgpu.ts'
import { checkBfloat16 } from './bfloat16.ts'
import { checkFamily, type FamilyReport } from './checks.ts'
import { checkRealModel } from './real-model.ts'
import { Reference } from './reference.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    family: { type: 'string' },
    models: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    fp16: { type: 'boolean', default: false },
    bf16: { type: 'boolean', default: false },
  },
})
const [root] = positionals
if (!root || !existsSync(root)) {
  console.error('usage: npm run parity -- FOLDER [--family NAME] [--models FOLDER] [--device NAME]')
  process.exit(2)
}
const device = parseDevice(values.device)
if (device === 'auto') throw new Error('--device takes one device: cpu, webgpu or cuda')
if (device.kind === 'webgpu') useSoftwareGpu()
// the bounds are float32's, not TF32's
if (device.kind === 'cuda') process.env.NVIDIA_TF32_OVERRIDE ??= '0'
const python = findPython()
const totals = { passed: 0, failed: 0, unsupported: 0 }
const names = readdirSync(root)
  .filter((name) => existsSync(join(root, name, 'reference.json')))
  .filter((name) => !values.family || name === values.family)
if (names.length === 0) {
  console.error(`no family to compare in ${root}${values.family ? ` named ${values.family}` : ''}`)
  process.exit(2)
}
for (const name of names) await compare(name)
console.log(`\n${totals.passed} passed, ${totals.failed} failed, ${totals.unsupported} unsupported`)
process.exitCode = totals.failed > 0 ? 1 : 0

async function compare(name: string): Promise<void> {
  console.log(`\n${name} on ${values.device}${values.fp16 ? ', fp16' : values.bf16 ? ', bf16' : ''}`)
  try {
    const reference = new Reference(join(root!, name))
    print(reference.has('model') ? await checkTiny(reference) : await checkReal(reference))
  } catch (error) {
    if (error instanceof EngineError && error.kind === 'unsupported') {
      totals.unsupported++
      console.log(`  unsupported  ${error.message}`)
      return
    }
    totals.failed++
    console.log(`  FAILED       ${error instanceof Error ? error.stack : error}`)
  }
}

async function checkTiny(reference: Reference): Promise<FamilyReport> {
  const base = join(reference.folder, 'model')
  familyOf(readRawConfig(base))
  if (values.bf16) return checkBfloat16(reference, base, python, device as Device)
  return checkFamily(reference, python, { device: device as Device, fp16: values.fp16 })
}

async function checkReal(reference: Reference): Promise<FamilyReport> {
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-parity-'))
  try {
    const base = findRealModel(reference.name, scratch)
    if (values.bf16) return await checkBfloat16(reference, base, python, device as Device)
    return await checkRealModel(reference, base, device as Device)
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

/** The folder of a real model: given, beside the reference folder, or unpacked into `scratch`. */
function findRealModel(name: string, scratch: string): string {
  const shared = resolve(import.meta.dirname, '../../../shared/models')
  const places = values.models ? [values.models] : [resolve(root!, '../models'), shared]
  for (const place of places) {
    if (existsSync(join(place, name, 'model.safetensors'))) return join(place, name)
    if (!existsSync(join(place, 'unpack.mjs'))) continue
    execFileSync(process.execPath, [join(place, 'unpack.mjs'), join(scratch, name)])
    return join(scratch, name)
  }
  const message = `no weights for ${name} in ${places.join(' or ')}; name their folder with --models`
  throw new EngineError('unsupported', 'weights_missing', message)
}

function findPython(): string | null {
  const candidate = process.env.JUDGE_PYTHON ?? 'python3'
  try {
    execFileSync(candidate, ['-c', 'import peft, transformers'], { stdio: 'ignore' })
    return candidate
  } catch {
    return null
  }
}

function print({ checks, unsupported, notes }: FamilyReport): void {
  for (const { name, error, bound, passed } of checks) {
    totals[passed ? 'passed' : 'failed']++
    const figure = error === null ? '' : `  ${error.toExponential(2)} (bound ${bound!.toExponential(1)})`
    console.log(`  ${passed ? 'passed' : 'FAILED'}       ${name}${figure}`)
  }
  for (const what of unsupported) {
    totals.unsupported++
    console.log(`  unsupported  ${what}`)
  }
  for (const note of notes) console.log(`  note         ${note}`)
}
