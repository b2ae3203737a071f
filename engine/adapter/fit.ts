import { EngineError } from '../errors.ts'
import type { LoraAdapter } from './peft.ts'

const SHOWN = 10

/**
 * Checks that a base has every module of an adapter, in the adapter's shape.
 *
 * @param shapeOf [out, in] of a linear module of the base
 * @param where the base, for the message
 * @throws EngineError `invalid` listing the modules that don't fit.
 */
export function requireFit(
  adapter: LoraAdapter,
  shapeOf: (modulePath: string) => readonly number[] | undefined,
  where: string,
): void {
  const problems: string[] = []
  for (const [modulePath, { aShape, bShape, magnitude }] of adapter.modules) {
    const shape = shapeOf(modulePath)
    const expected = [bShape[0], aShape[1]]
    if (!shape) problems.push(`${modulePath} is not in the base`)
    else if (shape.length !== 2 || shape[0] !== expected[0] || shape[1] !== expected[1]) {
      problems.push(`${modulePath} is [${shape}] in the base, but the adapter is for [${expected}]`)
    } else if (magnitude && magnitude.length !== expected[0]) {
      problems.push(`${modulePath} has ${expected[0]} outputs, but ${magnitude.length} magnitudes`)
    }
  }
  if (problems.length === 0) return
  const more = problems.length > SHOWN ? `; and ${problems.length - SHOWN} more` : ''
  throw new EngineError(
    'invalid',
    'adapter_mismatch',
    `the adapter does not fit the base ${where}: ${problems.slice(0, SHOWN).join('; ')}${more}`,
    { param: 'adapter' },
  )
}
