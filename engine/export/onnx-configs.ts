import { existsSync } from 'node:fs'
import { join } from 'node:path'
import type { OpenModel } from '../models/index.ts'
import { loadTokenizer, readTokenizer } from '../text/tokenizer.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'
import type { WeightDType } from '../weights/dtypes.ts'
import { CONFIG_FILE, carryFiles, changedConfig } from '../weights/model-files.ts'

interface OnnxFacts {
  /** Name of the graph's file in onnx/. */
  file: string
  dtype: WeightDType
  positions: number
}

/** Writes config and tokenizer files as transformers.js looks for them, and genai_config.json. */
export function writeOnnxConfigs(folder: string, model: OpenModel, facts: OnnxFacts): void {
  carryFiles(model.folder, folder, facts.dtype)
  writeTokenizer(model.folder, folder)
  const forTransformersJs = { 'transformers.js_config': { use_external_data_format: { [facts.file]: 1 } } }
  writeFileDurably(join(folder, CONFIG_FILE), changedConfig(folder, forTransformersJs))
  writeFileDurably(
    join(folder, 'genai_config.json'),
    `${JSON.stringify(genaiConfig(model, facts), null, 2)}\n`,
  )
}

/** transformers.js reads tokenizer.json alone, which is made of tokenizer.model where the model has no other. */
function writeTokenizer(modelFolder: string, folder: string): void {
  if (existsSync(join(folder, 'tokenizer.json'))) return
  const { json, config } = readTokenizer(modelFolder)
  writeFileDurably(join(folder, 'tokenizer.json'), JSON.stringify(json))
  writeFileDurably(join(folder, 'tokenizer_config.json'), `${JSON.stringify(config, null, 2)}\n`)
}

/** https://onnxruntime.ai/docs/genai/reference/config.html */
function genaiConfig({ config, folder }: OpenModel, { file, positions }: OnnxFacts): object {
  const { bosTokenId, eosTokenIds, padTokenId } = loadTokenizer(folder)
  return {
    model: {
      type: config.modelType,
      ...(bosTokenId === undefined ? {} : { bos_token_id: bosTokenId }),
      eos_token_id: eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds,
      pad_token_id: padTokenId,
      context_length: positions,
      vocab_size: config.vocabSize,
      decoder: {
        session_options: { log_id: 'onnxruntime-genai', provider_options: [] },
        filename: `onnx/${file}`,
        head_size: config.headDim,
        hidden_size: config.hiddenSize,
        num_attention_heads: config.heads,
        num_hidden_layers: config.layers,
        num_key_value_heads: config.keyValueHeads,
        inputs: {
          input_ids: 'input_ids',
          attention_mask: 'attention_mask',
          position_ids: 'position_ids',
          past_key_names: 'past_key_values.%d.key',
          past_value_names: 'past_key_values.%d.value',
        },
        outputs: {
          logits: 'logits',
          present_key_names: 'present.%d.key',
          present_value_names: 'present.%d.value',
        },
      },
    },
    search: {
      do_sample: false,
      max_length: positions,
      min_length: 0,
      num_beams: 1,
      past_present_share_buffer: false,
      repetition_penalty: 1,
      temperature: 1,
      top_k: 1,
      top_p: 1,
    },
  }
}
