// A thread that compiles a grammar only to see whether it can be compiled: it may hang or abort, and is then thrown away.
import { parentPort, workerData } from 'node:worker_threads'
import type { GrammarFormat } from './format.ts'
import { GrammarLibrary, type GrammarVocabulary } from './xgrammar.ts'

const vocabulary = workerData as GrammarVocabulary
const loading = GrammarLibrary.load(vocabulary)
const port = parentPort!

port.on('message', async (format: GrammarFormat) => {
  try {
    const library = await loading
    const grammar = await library.compile(format)
    const matcher = await grammar.start()
    const mask = matcher.mask()!
    const isPossible = vocabulary.texts.some((_, id) => {
      return ((mask[id >> 5]! >>> (id & 31)) & 1) === 1 && !vocabulary.stopIds.includes(id)
    })
    matcher.dispose()
    grammar.dispose()
    port.postMessage(isPossible ? 'fine' : 'refused')
  } catch {
    port.postMessage('refused')
  }
})
void loading.then(() => port.postMessage('ready'))
