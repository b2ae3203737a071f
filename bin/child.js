// What child processes and threads begin with; the first argument names their module.
import { runProgram } from './program.js'

await runProgram(process.argv[2])
