/** How a served base's linear modules are held: as they are, or rounded to 8 or 4 bits in blocks of a row. */
export const SERVED_WEIGHTS = ['float32', 'int8', 'int4'] as const
export type ServedWeights = (typeof SERVED_WEIGHTS)[number]
