import { createContext, Script } from 'node:vm'

const context = createContext({ work: undefined as unknown })
const script = new Script('work()')

/**
 * Runs synchronous JavaScript and interrupts it after `ms`, wherever it stands.
 * @throws `late()` when the time is over, and what the work throws.
 */
export function withTimeLimit<T>(work: () => T, ms: number, late: () => Error): T {
  context.work = work
  try {
    return script.runInContext(context, { timeout: ms }) as T
  } catch (error) {
    if ((error as { code?: unknown } | null)?.code === 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw late()
    throw error
  } finally {
    context.work = undefined
  }
}
