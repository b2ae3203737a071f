import Database from 'better-sqlite3'

export type Sqlite = Database.Database

/** Databases that were opened here, with their statements. */
const kept = new Set<Sqlite>()

/**
 * Opens a database file. What the driver makes is never left to the garbage collector: since Node 24.19 (and in 26),
 * binaries that were built against its headers end the process when an idle collection frees a database or statement
 * (node::ObjectWrap's destructor looks for the current context, and there is none). So a statement is made once for each
 * text and kept, which also spares SQLite its compilation; a closed database is a few hundred bytes.
 *
 * @param options.timeout milliseconds to wait for another process's lock
 */
export function openSqlite(file: string, options: { timeout: number }): Sqlite {
  const sqlite = new Database(file, options)
  kept.add(sqlite)
  const statements = new Map<string, Database.Statement>()
  const prepare = sqlite.prepare.bind(sqlite)
  const prepareOnce = (source: string): Database.Statement => {
    const known = statements.get(source)
    if (known) return known.reader ? known.raw(false).pluck(false) : known
    const statement = prepare(source)
    statements.set(source, statement)
    return statement
  }
  return Object.assign(sqlite, { prepare: prepareOnce })
}
