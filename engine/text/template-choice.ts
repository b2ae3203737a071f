/** A template by name, with what a training config says beside it. */
export interface TemplateChoice {
  /** Null, `auto` and `tokenizer` are the model's own. */
  name?: string | null | undefined
  /** Formats of reasoning models and templates that know the variable: think, or answer at once. */
  enableThinking?: boolean
  /** Keep the thoughts of earlier answers. */
  preserveThinking?: boolean
  /** How a named template lists and calls tools, a key of TOOL_WORDS. */
  toolFormat?: string
  /** The system text of conversations that have none. */
  defaultSystem?: string
}

/** The fields of a training config that say how conversations are written. */
export interface TemplateFields {
  template?: string | undefined
  enable_thinking?: boolean | undefined
  preserve_thinking?: boolean | undefined
  tool_format?: string | undefined
  default_system?: string | undefined
}

/** A config's template: its name, or all that it says where it says more. */
export function templateChoice(fields: TemplateFields): string | TemplateChoice | undefined {
  const choice: TemplateChoice = {
    ...(fields.enable_thinking === undefined ? {} : { enableThinking: fields.enable_thinking }),
    ...(fields.preserve_thinking === undefined ? {} : { preserveThinking: fields.preserve_thinking }),
    ...(fields.tool_format === undefined ? {} : { toolFormat: fields.tool_format }),
    ...(fields.default_system === undefined ? {} : { defaultSystem: fields.default_system }),
  }
  return Object.keys(choice).length === 0 ? fields.template : { name: fields.template, ...choice }
}
