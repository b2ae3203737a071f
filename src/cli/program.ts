import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { packageRoot } from '../settings.ts'
import { chatCommand } from './chat.ts'
import { completionCommand } from './completion.ts'
import { datasetsCommand } from './datasets.ts'
import { demoCommand } from './demo.ts'
import { deviceCommand } from './device.ts'
import { doctorCommand } from './doctor.ts'
import { evalCommand } from './eval.ts'
import { expandCommand } from './expand.ts'
import { exportCommand } from './export.ts'
import { importCommand } from './import.ts'
import { cancelCommand, logsCommand, psCommand, rmCommand } from './jobs.ts'
import { mergeCommand } from './merge.ts'
import { modelsCommand } from './models.ts'
import { previewCommand } from './preview.ts'
import { pullCommand } from './pull.ts'
import { serveCommand } from './serve.ts'
import { reportFailure } from './support/failure.ts'
import { trainCommand } from './train.ts'

const EPILOGUE = `
Examples:
  anneal train model=anneal-tiny dataset=anneal_identity num_train_epochs=10
  anneal train config.yaml learning_rate=1e-4
  anneal chat run-3f9a1c07b2de
  anneal serve --port 8000

Settings come from wrangler-free.config.ts and ANNEAL_* variables; ANNEAL_DEBUG=1 prints stack traces.`

/** The whole command line. Each command loads the application only when it runs, so that help and errors are quick. */
export function buildProgram(): Command {
  const program = new Command('anneal')
    .description('Fine-tune, merge, export and serve language models.')
    .version(version())
    .addHelpText('after', EPILOGUE)
    .showHelpAfterError('Run anneal --help for usage.')
    .configureOutput({ outputError: (text, write) => write(text.replace(/^error: /, 'anneal: ')) })
    .exitOverride()
  const commands = [
    serveCommand(),
    trainCommand(),
    previewCommand(),
    chatCommand(),
    mergeCommand(),
    expandCommand(),
    exportCommand(),
    evalCommand(),
    datasetsCommand(),
    pullCommand(),
    importCommand(),
    modelsCommand(),
    psCommand(),
    logsCommand(),
    cancelCommand(),
    rmCommand(),
    deviceCommand(),
    doctorCommand(),
    completionCommand(),
    demoCommand(),
  ]
  for (const command of commands) adopt(program, command)
  return program
}

/** Runs one command and returns the process's exit code: 0 done, 1 failed, 2 wrong usage, 130 cancelled. */
export async function runCommandLine(words: string[]): Promise<number> {
  try {
    await buildProgram().parseAsync(words.length > 0 ? words : ['--help'], { from: 'user' })
    return 0
  } catch (error) {
    return reportFailure(error)
  }
}

/** Subcommands inherit how errors leave the program only when they are told so, at every level. */
function adopt(parent: Command, command: Command): void {
  command.copyInheritedSettings(parent)
  parent.addCommand(command)
  for (const child of command.commands) child.copyInheritedSettings(command)
}

function version(): string {
  const manifest = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }
  return manifest.version
}
