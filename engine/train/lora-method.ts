import { type LoraAdapter, type LoraModule, parseLoraName } from '../adapter/peft.ts'
import { loraSize, type PeftConfig } from '../adapter/peft-config.ts'
import type { Parameter } from './step.ts'
import type { LoraMethod } from './training-method.ts'

/** The training that an adapter's config describes. */
export function loraMethod(config: PeftConfig): LoraMethod {
  const { modules_to_save: saved } = config
  return {
    kind: 'lora',
    ...loraSize(config, ''),
    sizeOf: (modulePath) => loraSize(config, modulePath),
    dropout: config.lora_dropout,
    targets:
      config.target_modules === null || config.target_modules === 'all-linear'
        ? 'all'
        : config.target_modules,
    layers: config,
    dora: config.use_dora,
    saves: (tensor) => (saved ?? []).some((name) => isBelow(tensor, name)),
  }
}

/** PEFT's rule for modules_to_save: a module's path ends with the name, wherever; all tensors below it are meant. */
export function isBelow(tensor: string, name: string): boolean {
  const parts = tensor.split('.')
  return parts.slice(0, -1).some((_, index) =>
    parts
      .slice(0, index + 1)
      .join('.')
      .endsWith(name),
  )
}

/** The adapter that trained parameters make up, with their arrays as they are now. */
export function collectAdapter(config: PeftConfig, parameters: readonly Parameter[]): LoraAdapter {
  const modules = new Map<string, Partial<LoraModule>>()
  const saved: LoraAdapter['saved'] = new Map()
  for (const { name, shape, data } of parameters) {
    const place = parseLoraName(name)
    if (!place) {
      saved.set(name, { shape, data })
      continue
    }
    const { modulePath, part } = place
    const size = [shape[0]!, shape[1]!] as [number, number]
    const piece: Partial<LoraModule> =
      part === 'A'
        ? { a: data, aShape: size }
        : part === 'B'
          ? { b: data, bShape: size }
          : { magnitude: data }
    const { scale } = loraSize(config, modulePath)
    modules.set(modulePath, { ...modules.get(modulePath), ...piece, scale })
  }
  return { config, modules: modules as LoraAdapter['modules'], saved }
}

/** The start of each parameter in an adapter; the arrays are copies. */
export function startFromAdapter(adapter: LoraAdapter): (name: string) => Float32Array | undefined {
  return (name) => {
    const place = parseLoraName(name)
    if (!place) return adapter.saved.get(name)?.data.slice()
    const module = adapter.modules.get(place.modulePath)
    return { A: module?.a, B: module?.b, magnitude: module?.magnitude }[place.part]?.slice()
  }
}
