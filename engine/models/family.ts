import type { Value } from '../graph/values.ts'
import type { DecoderConfig } from '../nn/config.ts'
import type { BuildForm } from '../nn/decoder-layer.ts'
import type { ModelBuilder } from '../nn/model-builder.ts'
import type { RawConfig } from './raw-config.ts'

/** One model architecture, by the `model_type` of its config.json. */
export interface Family {
  readonly modelType: string
  /** Reads config.json; throws `unsupported` naming the field of a variant that isn't computed here. */
  parseConfig(raw: RawConfig): DecoderConfig
  /** Hidden states [batch*seq, hidden] after the final norm. */
  build(m: ModelBuilder, config: DecoderConfig, form: BuildForm): Value
}
