import type { JsonObject } from './tokenizer-files.ts'

/** A token by its text and id. */
export interface NamedToken {
  id: number
  content: string
}

/** tokenizer.json's post-processor that puts tokens before and behind a text; null for none. */
export function surroundedBy(first: NamedToken | undefined, last: NamedToken | undefined): JsonObject | null {
  const used = [first, last].filter((token) => token !== undefined)
  if (used.length === 0) return null
  const special = (token: NamedToken | undefined, type: number) =>
    token === undefined ? [] : [{ SpecialToken: { id: token.content, type_id: type } }]
  const text = (id: 'A' | 'B', type: number) => [
    ...special(first, type),
    { Sequence: { id, type_id: type } },
    ...special(last, type),
  ]
  return {
    type: 'TemplateProcessing',
    single: text('A', 0),
    pair: [...text('A', 0), ...text('B', 1)],
    special_tokens: Object.fromEntries(
      used.map(({ id, content }) => [content, { id: content, ids: [id], tokens: [content] }]),
    ),
  }
}
