// The child process that holds one base model. It talks to its parent over IPC only and ends with it.
import { EngineError } from '../../engine/errors.ts'
import { LoadedModel } from './loaded-model.ts'
import {
  type GenerateRequest,
  type HostCommand,
  type HostEvent,
  type HostReport,
  type ModelCall,
  toWireError,
} from './protocol.ts'

let model: Promise<LoadedModel> | undefined
/** The model once it is there. */
let ready: LoadedModel | undefined
const cancels = new Map<number, AbortController>()
let outbox: HostEvent[] = []
let resident = { at: Number.NEGATIVE_INFINITY, bytes: 0 }
const RESIDENT_MS = 1000

function send(report: HostReport): void {
  process.send?.(report, undefined, undefined, () => {}) // a parent that is gone ends this process by 'disconnect'
}

/** Collects what one step says into one message, sent before the next step blocks the thread. */
function post(event: HostEvent): void {
  if (outbox.length === 0) process.nextTick(flush)
  outbox.push(event)
}

function flush(): void {
  send({ type: 'events', events: outbox, memoryBytes: residentBytes(), load: ready?.load })
  outbox = []
}

/** Asked of the system now and then: for each token it costs a tenth of a millisecond of the engine's time. */
function residentBytes(): number {
  const now = performance.now()
  if (now - resident.at > RESIDENT_MS) resident = { at: now, bytes: process.memoryUsage.rss() }
  return resident.bytes
}

async function load(command: Extract<HostCommand, { type: 'load' }>): Promise<void> {
  model = LoadedModel.load(command.baseFolder, command.limits)
  try {
    ready = await model
    send({ type: 'ready', memoryBytes: process.memoryUsage.rss(), fallbacks: ready.fallbacks })
  } catch (error) {
    send({ type: 'failed', error: toWireError(error) })
  }
}

async function generate(id: number, request: GenerateRequest): Promise<void> {
  const abort = new AbortController()
  cancels.set(id, abort)
  try {
    const loaded = await model!
    if (abort.signal.aborted) return
    for await (const event of loaded.answer(request, abort.signal)) post({ id, event })
  } catch (error) {
    // The parent has forgotten a cancelled request already.
    if (!abort.signal.aborted) post({ id, error: toWireError(error) })
  } finally {
    cancels.delete(id)
  }
}

async function call(id: number, question: ModelCall): Promise<void> {
  try {
    post({ id, answer: await (await model!).call(question) })
  } catch (error) {
    post({ id, error: toWireError(error) })
  }
}

async function unload(): Promise<void> {
  const loaded = await model?.catch(() => undefined)
  loaded?.scheduler.dropAll(
    new EngineError('unavailable', 'model_unloaded', 'The model was unloaded while it answered; try again.'),
  )
  await loaded?.release()
  process.exit(0)
}

process.on('message', (command: HostCommand) => {
  switch (command.type) {
    case 'load':
      return void load(command)
    case 'generate':
      return void generate(command.id, command.request)
    case 'call':
      return void call(command.id, command.call)
    case 'cancel':
      cancels.get(command.id)?.abort()
      return void setImmediate(flush) // the load has changed
    case 'unload':
      return void unload()
  }
})
process.on('disconnect', () => process.exit(0))
// A terminal's Ctrl-C reaches the whole group; the server decides when its children end.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => {})
