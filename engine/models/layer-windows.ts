import { malformedConfig, type RawConfig, unsupportedField } from './raw-config.ts'

/** How a family decides which layers see only a window. */
export interface SlidingRule {
  /** sliding_window where the file does not name it; null: none. */
  readonly window: number | null
  /** Whether a layer slides where the file has no layer_types. */
  readonly slides: (layer: number) => boolean
  /** Whether the family goes by layer_types; elsewhere layer_types that say something else are refused. */
  readonly byLayerTypes?: boolean
}

/** The window of each layer, or null where a layer sees all. No rule: the family has no windows. */
export function layerWindows(raw: RawConfig, layers: number, rule?: SlidingRule): (number | null)[] {
  const types = layerTypes(raw, layers)
  const window = rule ? slidingWindow(raw, rule) : null
  return Array.from({ length: layers }, (_, layer) => {
    const usual = rule !== undefined && window !== null && rule.slides(layer)
    const slides = types ? types[layer] === 'sliding_attention' : usual
    if (slides !== usual && !rule?.byLayerTypes) {
      const supported = `${raw.model_type} has ${usual ? 'sliding_attention' : 'full_attention'} in layer ${layer}`
      throw unsupportedField(raw, 'layer_types', types, supported)
    }
    if (slides && window === null)
      throw malformedConfig(raw, `layer ${layer} slides, but sliding_window is not set`)
    return slides ? window : null
  })
}

function slidingWindow(raw: RawConfig, rule: SlidingRule): number | null {
  const window = raw.sliding_window === undefined ? rule.window : raw.sliding_window
  if (window === null || (Number.isInteger(window) && (window as number) > 0)) return window as number | null
  throw malformedConfig(raw, `sliding_window: ${JSON.stringify(window)} is not a number of tokens`)
}

function layerTypes(raw: RawConfig, layers: number): readonly string[] | null {
  const types = raw.layer_types
  if (types === undefined || types === null) return null
  if (!Array.isArray(types) || types.length !== layers) {
    throw malformedConfig(raw, `layer_types must name a type for each of the ${layers} layers`)
  }
  const other = types.find((type) => type !== 'full_attention' && type !== 'sliding_attention')
  if (other !== undefined) {
    throw unsupportedField(raw, 'layer_types', other, "'full_attention' and 'sliding_attention' are")
  }
  return types
}
