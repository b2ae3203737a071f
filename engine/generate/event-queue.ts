/** Hands events from a producer that does not wait to one consumer that reads them in order. */
export class EventQueue<T> {
  readonly #items: T[] = []
  #closed = false
  #error: Error | undefined
  #wake: (() => void) | undefined

  /** Adds an event; ignored after end() or fail(). */
  push(item: T): void {
    if (this.#closed) return
    this.#items.push(item)
    this.#wake?.()
  }

  /** The consumer reads what is left, then stops. */
  end(): void {
    this.#closed = true
    this.#wake?.()
  }

  /** The consumer reads what is left, then gets `error`. */
  fail(error: Error): void {
    if (this.#closed) return
    this.#error = error
    this.end()
  }

  /** The events, to be read once; `onClose` runs when the reading ends in whatever way. */
  async *read(onClose: () => void = () => {}): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        while (this.#items.length > 0) yield this.#items.shift()!
        if (this.#closed) break
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
      }
      if (this.#error) throw this.#error
    } finally {
      onClose()
    }
  }
}
