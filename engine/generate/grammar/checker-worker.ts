// A thread that compiles a grammar only to see whether it can be compiled: it may hang or abort, and is then thrown away.
import { parentPort, workerData } from 'node:worker_threads'
import type { GrammarFormat } from './format.ts'
import { GrammarLibrary, type GrammarVocabulary } from './xgrammar.ts'

const library = await GrammarLibrary.load(workerData as GrammarVocabulary)
const port = parentPort!

port.on('message', async (format: GrammarFormat) => {
  try {
    const grammar = await library.compile(format)
    const matcher = await grammar.start()
    matcher.mask()
    matcher.dispose()
    grammar.dispose()
    port.postMessage('fine')
  } catch {
    port.postMessage('refused')
  }
})
port.postMessage('ready')
