import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { EngineError } from '../../errors.ts'
import type { GrammarFormat } from './format.ts'
import type { GrammarVocabulary } from './xgrammar.ts'

/** Grammars of real schemas take tens of milliseconds, also with large vocabularies. */
const COMPILE_LIMIT_MS = 2_000
/** Until the thread has loaded the library and the vocabulary. */
const START_LIMIT_MS = 30_000
/** An unused thread is given up after this time. */
const IDLE_MS = 60_000

type Answer = 'ready' | 'fine' | 'refused' | 'late'

/**
 * Tries grammars out in a thread of its own, one after the other. A grammar that takes too long, or that aborts the
 * library, ends the thread and nothing else.
 */
export class GrammarChecker {
  readonly #vocabulary: GrammarVocabulary
  readonly #limitMs: number
  #worker: Worker | undefined
  #last: Promise<void> = Promise.resolve()
  #idle: NodeJS.Timeout | undefined

  constructor(vocabulary: GrammarVocabulary, limitMs = COMPILE_LIMIT_MS) {
    this.#vocabulary = vocabulary
    this.#limitMs = limitMs
  }

  /** @throws EngineError invalid 'invalid_schema' when the library refuses the grammar or is not done in time. */
  check(format: GrammarFormat): Promise<void> {
    const checked = this.#last.then(() => this.#check(format))
    this.#last = checked.catch(() => {})
    return checked
  }

  async close(): Promise<void> {
    clearTimeout(this.#idle)
    const worker = this.#worker
    this.#worker = undefined
    await worker?.terminate()
  }

  async #check(format: GrammarFormat): Promise<void> {
    clearTimeout(this.#idle)
    const worker = this.#worker ?? (await this.#start())
    const answer = answerOf(worker, this.#limitMs)
    worker.postMessage(format)
    const said = await answer
    if (said === 'fine') {
      this.#idle = setTimeout(() => void this.close(), IDLE_MS).unref()
      return
    }
    await this.close()
    throw new EngineError(
      'invalid',
      'invalid_schema',
      said === 'late'
        ? `The schema takes more than ${this.#limitMs} ms to compile; make it smaller or simpler.`
        : 'The schema cannot be turned into a grammar: nothing fits it, or it uses what is not supported.',
    )
  }

  async #start(): Promise<Worker> {
    const worker = new Worker(new URL('../../../bin/child.js', import.meta.url), {
      argv: [fileURLToPath(new URL('./checker-worker.ts', import.meta.url))],
      workerData: this.#vocabulary,
      execArgv: [],
      stdout: true,
      stderr: true,
    })
    worker.unref()
    worker.on('error', () => {}) // told by answerOf
    this.#worker = worker
    if ((await answerOf(worker, START_LIMIT_MS)) !== 'ready') {
      await this.close()
      throw new EngineError('internal', 'grammar_unavailable', 'The grammar library could not be started.')
    }
    return worker
  }
}

/** The worker's next word; 'refused' when it ends without one, 'late' when the time is over. */
function answerOf(worker: Worker, limitMs: number): Promise<Answer> {
  return new Promise((resolve) => {
    const settle = (answer: Answer) => {
      clearTimeout(timer)
      worker.off('message', settle)
      worker.off('exit', ended)
      resolve(answer)
    }
    const ended = () => settle('refused')
    const timer = setTimeout(() => settle('late'), limitMs)
    worker.on('message', settle)
    worker.on('exit', ended)
  })
}
