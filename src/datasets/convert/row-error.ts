/** Why a row cannot be used; the row is skipped with a warning, the others count. */
export class RowError extends Error {
  override readonly name = 'RowError'
}
