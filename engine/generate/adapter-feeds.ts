import { GraphBuilder } from '../graph/builder.ts'
import type { LinearModule } from '../nn/linear-module.ts'
import { type Device, keepsNatively } from '../onnx/device.ts'
import { type DeviceTensor, Session } from '../onnx/session.ts'
import type { Tensor } from '../tensor.ts'
import { AdapterStack } from './adapter-stack.ts'
import type { DecoderAdapter } from './decoder-adapter.ts'

/** Prompts and answers take turns, and may have other adapters each. */
const KEPT_STACKS = 2

interface Kept {
  readonly stack: AdapterStack
  /** Its weights where a device keeps them. */
  onDevice?: Record<string, DeviceTensor>
}

/**
 * The adapters that a compiled graph is fed with. The last stacks are kept, as batches change slowly; where a device keeps
 * tensors in its memory, their weights go there once and not with every run.
 */
export class AdapterFeeds {
  readonly #linears: readonly LinearModule[]
  readonly #scaled: boolean
  /** The device that keeps them, if one does. */
  readonly #keeper: Device | undefined
  /** The last used one first. */
  #kept: Kept[] = []
  #upload: Session | undefined

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
    const used = this.#use(wanted)
    const { stack } = used
    // WebGPU takes no buffer of no bytes
    if (this.#keeper && (stack.ranks > 0 || keepsNatively(this.#keeper)))
      used.onDevice ??= await this.#sent(stack.feeds, this.#keeper)
    return { ...(used.onDevice ?? stack.feeds), ...stack.rowFeeds(perToken) }
  }

  async release(): Promise<void> {
    for (const kept of this.#kept) forget(kept)
    this.#kept = []
    await this.#upload?.release()
    this.#upload = undefined
  }

  #use(adapters: ReadonlySet<DecoderAdapter>): Kept {
    const used = this.#kept.find(({ stack }) => stack.holds(adapters)) ?? {
      stack: new AdapterStack(this.#linears, [...adapters], { scaled: this.#scaled }),
    }
    const others = this.#kept.filter((kept) => kept !== used)
    this.#kept = [used, ...others.slice(0, KEPT_STACKS - 1)]
    for (const kept of others.slice(KEPT_STACKS - 1)) forget(kept)
    return used
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

function forget({ onDevice = {} }: Kept): void {
  for (const tensor of Object.values(onDevice)) tensor.dispose()
}
