import { EngineError } from '../../engine/errors.ts'
import type { Page } from '../../routes/services.ts'

/**
 * The page that follows the item `after` in a list that is in memory whole.
 *
 * @throws EngineError `unknown_cursor` when the list has no such item.
 */
export function pageAfter<T extends { id: string }>(
  all: readonly T[],
  after: string | undefined,
  limit: number,
): Page<T> {
  const start = after === undefined ? 0 : all.findIndex(({ id }) => id === after) + 1
  if (after !== undefined && start === 0) {
    const message = `after: ${JSON.stringify(after)} is not in this list.`
    throw new EngineError('invalid', 'unknown_cursor', message, { param: 'after' })
  }
  return { data: all.slice(start, start + limit), hasMore: start + limit < all.length }
}
