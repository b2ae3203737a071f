import {
  type LayerChoice,
  noSuchTarget,
  type TargetModules,
  targetedPaths,
  unmatchedTargets,
} from '../adapter/targets.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import type { LoraTarget } from '../nn/lora.ts'

/** LoRA as a run asks for it. */
export interface LoraMethod {
  readonly kind: 'lora'
  readonly rank: number
  /** alpha / rank, or alpha / √rank for rsLoRA. */
  readonly scale: number
  /** Probability of dropping an input of the branch, 0 to 1. */
  readonly dropout: number
  /** 'all' linear modules but the head and routed experts, or PEFT's target_modules: names, or one expression for whole paths. */
  readonly targets: TargetModules
  /** Only in some layers. */
  readonly layers?: LayerChoice
  /** Rank and scale of a module, where they are not the same for all. */
  readonly sizeOf?: (modulePath: string) => { rank: number; scale: number }
  /** Learn the magnitude of each row apart from its direction (DoRA, arXiv:2402.09353). */
  readonly dora?: boolean
  /** Whether a tensor of the base is trained as a whole beside the adapter (modules_to_save). */
  readonly saves?: (tensor: string) => boolean
}

/** What is trained: an adapter, or weights of the base: all of them, or those that `trains` says. */
export type TrainingMethod =
  | LoraMethod
  | { readonly kind: 'full'; readonly trains?: (tensor: string) => boolean }

/** Which tensors of the base are trained as they are, by name. */
export function trainedTensors(method: TrainingMethod): (tensor: string) => boolean {
  if (method.kind === 'lora') return method.saves ?? (() => false)
  return method.trains ?? (() => true)
}

/** The adapter of each module; dropout is for training alone. */
export function adapterOf(
  method: LoraMethod,
  training: boolean,
): (module: LinearModule) => LoraTarget | undefined {
  const { rank, scale, sizeOf, dora } = method
  return (module) =>
    targetedPaths([module], method.targets, method.layers).size > 0 &&
    !method.saves?.(`${module.path}.weight`)
      ? {
          ...(sizeOf?.(module.path) ?? { rank, scale }),
          dropout: training ? method.dropout : 0,
          magnitude: dora ? 'trained' : undefined,
        }
      : undefined
}

/** @throws EngineError `invalid` for a target that means no module of the model. */
export function checkTargets(linears: readonly LinearModule[], method: TrainingMethod): void {
  if (method.kind !== 'lora') return
  const missing = unmatchedTargets(linears, method.targets, method.layers)
  if (missing.length > 0) throw noSuchTarget(missing, linears)
}
