/** What a Modelfile says beside FROM; https://github.com/ollama/ollama/blob/main/docs/modelfile.md. */
export interface Modelfile {
  template?: string
  system?: string
  license?: string
  /** By name; a name that stands several times has a list. */
  parameters: Record<string, string | number | boolean | (string | number | boolean)[]>
}

/** An instruction with a value in triple quotes, in quotes, or up to the end of its line. */
const INSTRUCTION =
  /^(TEMPLATE|SYSTEM|LICENSE|PARAMETER[ \t]+\S+)[ \t]+(?:"""([\s\S]*?)"""|"([^\n]*)"|([^\n]*))[ \t]*$/gim

/** Reads the instructions of a Modelfile that Ollama keeps with a model. */
export function readModelfile(text: string): Modelfile {
  const result: Modelfile = { parameters: {} }
  for (const [, instruction = '', block, quoted, plain] of text
    .replaceAll('\r\n', '\n')
    .matchAll(INSTRUCTION)) {
    const value = block ?? quoted ?? plain ?? ''
    const [name, parameter] = instruction.split(/[ \t]+/)
    if (parameter !== undefined) addParameter(result.parameters, parameter.toLowerCase(), value)
    else result[name!.toLowerCase() as 'template' | 'system' | 'license'] = value
  }
  return result
}

function addParameter(parameters: Modelfile['parameters'], name: string, text: string): void {
  const value = typed(name, text)
  const before = parameters[name]
  if (name === 'stop') parameters[name] = [...((before as (string | number | boolean)[]) ?? []), value]
  else parameters[name] = value
}

/** Stop strings stay texts, also those that look like numbers. */
function typed(name: string, text: string): string | number | boolean {
  if (name === 'stop') return text
  if (text === 'true' || text === 'false') return text === 'true'
  return text !== '' && Number.isFinite(Number(text)) ? Number(text) : text
}
