import { Command } from 'commander'
import { datasetConversion } from '../../routes/schemas/datasets.ts'
import type { Dataset } from '../../routes/services.ts'
import { withApplication } from './support/application.ts'
import { UsageError } from './support/failure.ts'
import { formatBytes, formatCount, formatTable } from './support/format.ts'
import { note, print, printJson } from './support/terminal.ts'

/** Question-and-answer keys to those of the Alpaca format. */
const DEFAULT_RENAMES = ['query=instruction', 'response=output']

/** `anneal datasets`: the entries of dataset_info.json; `convert` renames the keys of one. */
export function datasetsCommand(): Command {
  const command = new Command('datasets')
    .description('List the datasets, or convert one.')
    .option('--all', 'also entries whose data is on a hub or in the cloud, which is not read')
    .option('--json', 'print them all as JSON')
    .addHelpText('after', '\nExample:\n  anneal datasets')
    .action(({ all, json }: { all?: boolean; json?: boolean }) =>
      withApplication(async ({ services }) => {
        const datasets = await services.datasets.list()
        if (json) return printJson(datasets)
        const shown = all ? datasets : datasets.filter((dataset) => !isElsewhere(dataset))
        print(formatTable([['DATASET', 'FORMAT', 'ROWS', 'SIZE', 'FILE'], ...shown.map(row)]))
        const hidden = datasets.length - shown.length
        if (hidden > 0) note(`${hidden} more on a hub or in the cloud, which is not read (--all lists them).`)
      }),
    )
  command.addCommand(convertCommand())
  return command
}

/** LLaMA-Factory's own dataset_info.json has about ninety such entries. */
export function isElsewhere({ error, file_name }: Dataset): boolean {
  return error !== null && file_name === ''
}

function convertCommand(): Command {
  return new Command('convert')
    .description('Write a copy of a dataset with its keys renamed, and register it.')
    .argument('<name>', 'dataset to convert')
    .option('--to <name>', 'name of the new dataset (default: <name>_alpaca)')
    .option('--rename <old=new...>', `keys to rename (default: ${DEFAULT_RENAMES.join(' ')})`)
    .option('--formatting <format>', 'format of the new dataset: alpaca, sharegpt or openai', 'alpaca')
    .option('--json', 'print the new dataset as JSON')
    .addHelpText('after', '\nExample:\n  anneal datasets convert my_set --to my_alpaca')
    .action((name: string, options: { to?: string; rename?: string[]; formatting: string; json?: boolean }) =>
      withApplication(async ({ services }) => {
        const conversion = datasetConversion.safeParse({
          name: options.to ?? `${name}_alpaca`,
          rename: readRenames(options.rename ?? DEFAULT_RENAMES),
          formatting: options.formatting,
        })
        if (!conversion.success) {
          const [issue] = conversion.error.issues
          throw new UsageError(`${issue?.path.join('.')}: ${issue?.message}`)
        }
        const converted = await services.datasets.convert(name, conversion.data)
        if (options.json) return printJson(converted)
        print(`${converted.name}: ${formatCount(converted.rows ?? 0)} rows in ${converted.file_name}`)
      }),
    )
}

/** `old=new` words as a map. */
export function readRenames(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const [from, to, ...rest] = word.split('=')
      if (!from || !to || rest.length > 0) {
        throw new UsageError(`--rename takes old=new, such as ${DEFAULT_RENAMES[0]}; got ${word}.`)
      }
      return [from, to]
    }),
  )
}

function row({ name, formatting, rows, bytes, file_name, error }: Dataset): string[] {
  return [
    name,
    formatting,
    rows === null ? '-' : formatCount(rows),
    bytes === null ? '-' : formatBytes(bytes),
    error ? `${file_name} (${error})` : file_name,
  ]
}
