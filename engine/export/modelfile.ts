import { join } from 'node:path'
import { loadTokenizer } from '../text/tokenizer.ts'
import { writeFileDurably } from '../weights/atomic-folder.ts'

export const MODELFILE = 'Modelfile'

/** The turns of a chat in the two forms that Ollama's Go templates need, by a mark in the model's own template. */
const TEMPLATES: readonly { mark: string; template: string; stops: readonly string[] }[] = [
  {
    mark: '<|im_start|>',
    template:
      '{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n',
    stops: ['<|im_end|>', '<|im_start|>'],
  },
  {
    mark: '<|start_header_id|>',
    template:
      '{{- range .Messages }}<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>{{ end }}' +
      '<|start_header_id|>assistant<|end_header_id|>\n\n',
    stops: ['<|eot_id|>', '<|start_header_id|>', '<|end_header_id|>'],
  },
  {
    mark: '<start_of_turn>',
    template:
      '{{- range .Messages }}<start_of_turn>{{ if eq .Role "assistant" }}model{{ else }}user{{ end }}\n' +
      '{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n',
    stops: ['<end_of_turn>'],
  },
  {
    mark: '<|assistant|>',
    template: '{{- range .Messages }}<|{{ .Role }}|>\n{{ .Content }}<|end|>\n{{ end }}<|assistant|>\n',
    stops: ['<|end|>', '<|user|>', '<|assistant|>'],
  },
  {
    mark: '[INST]',
    template:
      '{{- range .Messages }}{{ if eq .Role "assistant" }} {{ .Content }}</s>{{ else }}[INST] {{ .Content }} [/INST]' +
      '{{ end }}{{ end }}',
    stops: ['[INST]', '[/INST]'],
  },
]

/**
 * Writes the Modelfile with which `ollama create NAME -f Modelfile` takes over a GGUF file of the same folder: chat
 * template, stop strings and context length. Ollama's templates are Go's, so the model's Jinja template is matched by the
 * marks of its turns; one that matches none is left to the GGUF's own metadata, which Ollama reads too.
 */
export function writeModelfile(folder: string, modelFolder: string, ggufFile: string, context: number): void {
  const { chatTemplate, tokens } = loadTokenizer(modelFolder)
  const known = TEMPLATES.find(({ mark }) => chatTemplate?.includes(mark))
  const stops = new Set([...(known?.stops ?? []), ...(tokens.eos === undefined ? [] : [tokens.eos])])
  const lines = [`FROM ./${ggufFile}`]
  if (known) lines.push(`TEMPLATE """${known.template}"""`)
  for (const stop of stops) lines.push(`PARAMETER stop ${JSON.stringify(stop)}`)
  lines.push(`PARAMETER num_ctx ${context}`)
  writeFileDurably(join(folder, MODELFILE), `${lines.join('\n')}\n`)
}
