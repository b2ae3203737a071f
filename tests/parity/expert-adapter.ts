import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { mergeAdapter } from '../../engine/adapter/merge.ts'
import { type LoraModule, peftConfig, writeAdapter } from '../../engine/adapter/peft.ts'
import type { LinearModule } from '../../engine/nn/linear-module.ts'
import { baseLinearModules, openBase } from '../../engine/quant/source.ts'
import { createRandom } from '../../engine/random.ts'
import { bounded, type Check, exact } from './reference.ts'

const RANK = 4
const SCALE = 2

/**
 * PEFT, which keeps experts in stacked tensors, must read our adapters on single experts as we do: its logits are
 * compared with those of the merged model. Empty for models without experts.
 */
export function checkExpertAdapter(base: string, python: string, bound: number): Promise<Check[]> {
  const model = openBase(base)
  const experts = baseLinearModules(model).filter(({ expert }) => expert)
  model.weights.close()
  return experts.length === 0 ? Promise.resolve([]) : compare(base, experts, python, bound)
}

async function compare(
  base: string,
  experts: readonly LinearModule[],
  python: string,
  bound: number,
): Promise<Check[]> {
  const scratch = mkdtempSync(join(tmpdir(), 'anneal-parity-'))
  try {
    const [adapterFolder, outputFolder] = [join(scratch, 'adapter'), join(scratch, 'merged')]
    const names = new Set(experts.map(({ path }) => path.split('.').at(-1)!))
    const config = peftConfig({
      r: RANK,
      lora_alpha: RANK * SCALE,
      target_modules: [...names],
      base_model_name_or_path: null,
    })
    const random = createRandom(1)
    const modules = new Map(experts.map((module) => [module.path, randomModule(module, random)]))
    writeAdapter(adapterFolder, { config, modules, saved: new Map() })
    await mergeAdapter({ baseFolder: base, adapterFolder, outputFolder })
    const script = join(import.meta.dirname, 'judge-experts.py')
    const output = execFileSync(python, [script, base, adapterFolder, outputFolder], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    const { error, effect } = JSON.parse(output.trim().split('\n').at(-1)!) as {
      error: number
      effect: number
    }
    return [
      bounded('experts: our adapter loaded by PEFT as we merge it', error, bound),
      exact('experts: the adapter changes the logits', effect > 100 * bound),
    ]
  } finally {
    rmSync(scratch, { recursive: true, force: true })
  }
}

function randomModule(
  { inFeatures, outFeatures }: LinearModule,
  random: ReturnType<typeof createRandom>,
): LoraModule {
  const draw = (count: number) => Float32Array.from({ length: count }, () => 0.1 * random.nextGaussian())
  return {
    a: draw(RANK * inFeatures),
    aShape: [RANK, inFeatures],
    b: draw(outFeatures * RANK),
    bShape: [outFeatures, RANK],
    scale: SCALE,
  }
}
