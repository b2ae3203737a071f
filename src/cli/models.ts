import { Command } from 'commander'
import { misnamedFolders } from '../models/bases.ts'
import { withApplication } from './support/application.ts'
import { formatTable } from './support/format.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

/** `anneal models`: what can answer, be trained further, merged or exported. */
export function modelsCommand(): Command {
  return new Command('models')
    .description('List the models: bases, runs and their checkpoints, merges, exports.')
    .option('--json', 'print them as JSON')
    .addHelpText('after', '\nExample:\n  anneal models --json')
    .action(({ json }: { json?: boolean }) =>
      withApplication(async ({ services, settings }) => {
        const models = await services.models.list()
        for (const { folder, reason } of misnamedFolders(settings.directories.models)) {
          note(`Not listed: ${shownPath(folder)}: ${reason}.`)
        }
        if (json) return printJson(models)
        if (models.length === 0) return note(`No base model in ${settings.directories.models.join(', ')}.`)
        const rows = models.map(({ id, kind, parent, max_model_len }) => [
          id,
          kind,
          parent ?? '-',
          max_model_len === null ? '-' : String(max_model_len),
        ])
        print(formatTable([['MODEL', 'KIND', 'MADE FROM', 'CONTEXT'], ...rows]))
      }),
    )
}
