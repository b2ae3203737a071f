import { runCommandLine } from './program.ts'

// A reader that goes away early, such as head, is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0)
  throw error
})

void runCommandLine(process.argv.slice(2)).then((code) => {
  process.exitCode = code
})
