/** A JSON schema, or a part of one, as it was parsed. */
export type Schema = Readonly<Record<string, unknown>>
