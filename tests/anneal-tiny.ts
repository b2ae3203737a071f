import { fileURLToPath } from 'node:url'

/** The folder of the embedded model. */
export const ANNEAL_TINY = fileURLToPath(new URL('../data/models/anneal-tiny', import.meta.url))
