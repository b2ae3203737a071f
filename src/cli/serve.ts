import { Command } from 'commander'
import { readSettings } from './support/application.ts'
import { readNumber } from './support/read-number.ts'

/** `anneal serve`: the HTTP server, until SIGTERM or Ctrl-C. */
export function serveCommand(): Command {
  return new Command('serve')
    .description('Serve the HTTP API: training, merges, exports, datasets and OpenAI-compatible chat.')
    .option('--host <name>', 'address to listen on (a key is needed for any but the loopback)')
    .option('--port <number>', 'port to listen on; 0 takes a free one')
    .addHelpText('after', '\nExample:\n  anneal serve --port 8080')
    .action(async ({ host, port }: { host?: string; port?: string }) => {
      readNumber('--port', port, (value) => Number.isInteger(value) && value >= 0 && value <= 65535)
      const settings = await readSettings({
        ...(host !== undefined && { ANNEAL_HOST: host }),
        ...(port !== undefined && { ANNEAL_PORT: port }),
      })
      const { serve } = await import('../main.ts')
      await serve(settings)
    })
}
