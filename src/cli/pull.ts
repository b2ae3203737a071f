import { Command } from 'commander'
import { pullModel } from '../hub/pull.ts'
import { onInterrupt } from '../interrupts.ts'
import { readSettings } from './support/application.ts'
import { formatBytes } from './support/format.ts'
import { createProgressView, taskPoint } from './support/progress.ts'
import { note, print, printJson, shownPath } from './support/terminal.ts'

interface PullCommandOptions {
  name?: string
  json?: boolean
}

/** `anneal pull`: fetches a base model from the configured model hub. */
export function pullCommand(): Command {
  return new Command('pull')
    .description(
      'Fetch a base model from a model hub (hub.endpoint, HF_ENDPOINT); the same command goes on after a break.',
    )
    .argument('<repository>', 'ORG/NAME, or ORG/NAME@REVISION')
    .option('--name <name>', "id of the new base model (default: the repository's name)")
    .option('--json', 'print what was fetched as JSON')
    .addHelpText('after', '\nExample:\n  anneal pull HuggingFaceTB/SmolLM2-135M-Instruct')
    .action(pull)
}

async function pull(word: string, { name, json }: PullCommandOptions): Promise<void> {
  const { hub, directories } = await readSettings()
  const stop = new AbortController()
  const interrupts = onInterrupt((count) => (count > 1 ? process.exit(130) : stop.abort()))
  const view = createProgressView()
  note(`Fetching ${word} from ${hub.endpoint}`)
  try {
    const pulled = await pullModel({
      word,
      name,
      hub,
      directories: directories.models,
      signal: stop.signal,
      onProgress: ({ done, total, message }) => {
        const point = taskPoint({ fraction: total === 0 ? 1 : done / total, message })
        if (point) view.update(point)
      },
    })
    view.close()
    if (json) return printJson(pulled)
    print(
      `Base model: ${pulled.name}, ${formatBytes(pulled.bytes)} in ${shownPath(pulled.folder)} (commit ${pulled.commit})`,
    )
  } finally {
    view.close()
    interrupts.close()
  }
}
