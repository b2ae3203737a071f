import { Command } from 'commander'
import { importRequest } from '../../routes/schemas/imports.ts'
import { withApplication } from './support/application.ts'
import { UsageError } from './support/failure.ts'
import { formatBytes } from './support/format.ts'
import { taskPoint } from './support/progress.ts'
import { jobFolder, runJob } from './support/run-job.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface ImportOptions {
  name?: string
  dtype?: string
  json?: boolean
}

/** `anneal import`: makes a base model of a GGUF file. */
export function importCommand(): Command {
  return new Command('import')
    .description('Make a base model of a GGUF file, with its tokenizer and chat template.')
    .argument('<file>', 'a .gguf file')
    .option('--name <name>', "id of the new base model (default: the file's name)")
    .option('--dtype <name>', "bfloat16, float16 or float32 (default: the file's own, bfloat16 if quantized)")
    .option('--json', 'print the finished import as JSON')
    .addHelpText('after', '\nExample:\n  anneal import model-q4_1.gguf --name my-base')
    .action(importModel)
}

async function importModel(file: string, { name, dtype, json }: ImportOptions): Promise<void> {
  const fields = importRequest.omit({ file: true }).safeParse({ name, dtype })
  if (!fields.success) {
    const [issue] = fields.error.issues
    throw new UsageError(`--${String(issue?.path[0])}: ${issue?.message}`)
  }
  await withApplication(async (application) => {
    const { services, self } = application
    const { id, model } = await services.imports.create(
      { file, ...fields.data },
      { owner: self, trusted: true },
    )
    note(`${id}: importing ${file} as ${model}`)
    const done = await runJob(application, services.imports, id, taskPoint)
    if (json) return printJson(done)
    print(
      `Base model: ${model}, ${formatBytes(done.bytes ?? 0)} in ${shownPath(await jobFolder(application, id))}`,
    )
    print(`Chat with it: npx anneal chat ${model}`)
  })
}
