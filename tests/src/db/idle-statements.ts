// Makes statements and garbage until the collector has run while nothing else did, as a child of sqlite.test.ts.
import { openSqlite } from '../../../src/db/sqlite.ts'

const sqlite = openSqlite(':memory:', { timeout: 0 })
sqlite.exec('create table t (x)')
let garbage: unknown[] = []
let turns = 0
const timer = setInterval(() => {
  for (let i = 0; i < 50; i++) sqlite.prepare('select * from t where x = ?').all(i)
  garbage = []
  for (let i = 0; i < 2000; i++) garbage.push(new Array(100).fill(i))
  if (++turns < 120) return
  clearInterval(timer)
  console.log('done')
}, 5)
