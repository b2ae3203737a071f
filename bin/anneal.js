#!/usr/bin/env node
import { runProgram } from './program.js'

// What sources use everywhere, and older versions do not have.
if (import.meta.dirname === undefined) {
  console.error(`anneal: Node ${process.versions.node} is too old; version 20.19, 22.12 or newer is needed.`)
  process.exit(1)
}
await runProgram('src/cli/main.ts')
