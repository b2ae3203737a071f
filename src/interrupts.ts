/**
 * Signals that come within this time are one: npx and npm pass on the Ctrl-C that the terminal has sent to the whole group
 * already, and `timeout` sends its signal to the process and to its group.
 */
const ONE_PRESS_MS = 500

export interface Interrupts {
  close(): void
}

/**
 * Calls back for each Ctrl-C (or SIGTERM) with its number, 1 for the first, instead of ending the process.
 *
 * @param now milliseconds of a clock that only goes forward
 */
export function onInterrupt(
  listener: (count: number, signal: NodeJS.Signals) => void,
  now: () => number = () => performance.now(),
): Interrupts {
  let count = 0
  let last = Number.NEGATIVE_INFINITY
  const interrupted = (signal: NodeJS.Signals) => {
    const since = now() - last
    last = now()
    if (since >= ONE_PRESS_MS) listener(++count, signal)
  }
  process.on('SIGINT', interrupted)
  process.on('SIGTERM', interrupted)
  return {
    close() {
      process.off('SIGINT', interrupted)
      process.off('SIGTERM', interrupted)
    },
  }
}
