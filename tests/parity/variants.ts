/**
 * tsx tests/parity/variants.ts: writes every variant's adapter anew, as Anneal does, and has PEFT load and run it.
 * JUDGE_PYTHON names a Python with PEFT. Exits 1 when PEFT's logits differ from its own of the original adapter.
 */
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readAdapter, writeAdapter } from '../../engine/adapter/peft.ts'
import { convertPissa } from '../../engine/adapter/pissa.ts'

const variants = join(import.meta.dirname, 'variants')
const scratch = mkdtempSync(join(tmpdir(), 'anneal-variants-'))
try {
  for (const name of readdirSync(variants)) {
    if (name === 'pissa' || !existsSync(join(variants, name, 'adapter_config.json'))) continue
    if (!existsSync(join(variants, name, 'reference.safetensors'))) continue
    writeAdapter(join(scratch, name), readAdapter(join(variants, name)))
  }
  const [trained, begun] = ['pissa', 'pissa-start'].map((name) => readAdapter(join(variants, name)))
  writeAdapter(join(scratch, 'pissa-converted'), convertPissa(trained!, begun!))
  const script = join(import.meta.dirname, 'judge-variants.py')
  const { status } = spawnSync(process.env.JUDGE_PYTHON ?? 'python3', [script, scratch], { stdio: 'inherit' })
  process.exitCode = status ?? 1
} finally {
  rmSync(scratch, { recursive: true, force: true })
}
