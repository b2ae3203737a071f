import { GraphBuilder } from '../graph/builder.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import type { Device } from '../onnx/device.ts'
import { type DeviceTensor, Session } from '../onnx/session.ts'
import type { Tensor } from '../tensor.ts'
import { AdapterStack } from './adapter-stack.ts'
import type { DecoderAdapter } from './decoder-adapter.ts'

/**
 * The adapters that a compiled graph is fed with. The last stack is kept, as batches change slowly; where a device keeps
 * tensors in its memory, its weights go there once and not with every run.
 */
export class AdapterFeeds {
  readonly #linears: readonly LinearModule[]
  readonly #scaled: boolean
  /** The device that keeps them, if one does. */
  readonly #keeper: Device | undefined
  #stack: AdapterStack | undefined
  #upload: Session | undefined
  #onDevice: Record<string, DeviceTensor> | undefined

  constructor(linears: readonly LinearModule[], options: { scaled: boolean; keeper: Device | undefined }) {
    this.#linears = linears
    this.#scaled = options.scaled
    this.#keeper = options.keeper
  }

  /** The feeds of a run: the weights of all its adapters, and what tells each token which of them is its own. */
  async of(
    perToken: readonly (DecoderAdapter | undefined)[],
  ): Promise<Record<string, Tensor | DeviceTensor>> {
    const wanted = new Set(perToken.filter((adapter) => adapter !== undefined))
    if (!this.#stack?.holds(wanted)) {
      this.#forget()
      this.#stack = new AdapterStack(this.#linears, [...wanted], { scaled: this.#scaled })
    }
    const stack = this.#stack
    // no device takes a buffer of no bytes
    if (this.#keeper && stack.ranks > 0) this.#onDevice ??= await this.#sent(stack.feeds, this.#keeper)
    return { ...(this.#onDevice ?? stack.feeds), ...stack.rowFeeds(perToken) }
  }

  async release(): Promise<void> {
    this.#forget()
    await this.#upload?.release()
    this.#upload = undefined
  }

  #forget(): void {
    for (const tensor of Object.values(this.#onDevice ?? {})) tensor.dispose()
    this.#onDevice = undefined
    this.#stack = undefined
  }

  /** A graph that passes on what it is fed: its outputs stay on the device. */
  async #sent(
    feeds: Readonly<Record<string, Tensor>>,
    device: Device,
  ): Promise<Record<string, DeviceTensor>> {
    const g = new GraphBuilder()
    const passed = Object.entries(feeds).map(([name, { dims }]) =>
      g.Detach(
        g.input(
          name,
          'float32',
          dims.map((_, axis) => `${name}.${axis}`),
        ),
      ),
    )
    const keepOnDevice = passed.map(({ name }) => name)
    this.#upload ??= await Session.create(g.finish(passed), { device, keepOnDevice })
    const { kept } = await this.#upload.runKeeping(feeds)
    return Object.fromEntries(Object.keys(feeds).map((name, index) => [name, kept[keepOnDevice[index]!]!]))
  }
}
