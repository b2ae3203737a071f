import type { Node } from './graph.ts'
import type { Op } from './ops.ts'
import type { Value } from './values.ts'

/** A stretch of a graph that runs by itself. */
export interface Stage {
  readonly nodes: readonly Node[]
  /** What it needs of the stages before it; of the first stage, the source. */
  readonly reads: readonly Value[]
  /** What it makes that later stages need. */
  readonly passes: readonly Value[]
  /** Names of what no later stage reads again. */
  readonly readsLast: ReadonlySet<string>
}

/**
 * Cuts a graph behind each of `ends`: stage k computes what the stages before it have not of `ends[k]`. Only what depends on
 * `source` passes from one to the next; the rest, and the operations in `again` where what they read is passed on anyway, is
 * computed anew in every stage that reads it.
 */
export function cutIntoStages(
  nodes: readonly Node[],
  source: Value,
  ends: readonly Value[],
  again: ReadonlySet<Op>,
): Stage[] {
  const graph = describe(nodes, source)
  const stageOf = assignStages(graph, ends)
  const stages: Stage[] = []
  let known: readonly Value[] = [source]
  for (const [index, end] of ends.entries()) {
    const live = index + 1 < ends.length ? liveBehind(graph, stageOf, index, source, again) : []
    const passes = live.filter(({ name }) => !known.some((value) => value.name === name))
    const needed = neededNodes(graph, [end, ...passes], new Set(known.map(({ name }) => name)))
    const read = new Set([...needed].flatMap((node) => node.inputs).map((value) => value?.name))
    const reads = known.filter(({ name }) => read.has(name) || name === end.name)
    const stay = new Set(live.map(({ name }) => name))
    const readsLast = new Set(reads.map(({ name }) => name).filter((name) => !stay.has(name)))
    stages.push({ nodes: nodes.filter((node) => needed.has(node)), reads, passes, readsLast })
    known = live
  }
  return stages
}

interface Described {
  readonly nodes: readonly Node[]
  readonly producers: ReadonlyMap<string, Node>
  /** Names of the values that depend on the source, which is one of them. */
  readonly dependent: ReadonlySet<string>
}

function describe(nodes: readonly Node[], source: Value): Described {
  const producers = new Map<string, Node>()
  const dependent = new Set([source.name])
  for (const node of nodes) {
    const depends = node.inputs.some((input) => input && dependent.has(input.name))
    for (const output of node.outputs) {
      producers.set(output.name, node)
      if (depends) dependent.add(output.name)
    }
  }
  return { nodes, producers, dependent }
}

/** The first end that needs a node, for each node that depends on the source. */
function assignStages({ producers, dependent }: Described, ends: readonly Value[]): Map<Node, number> {
  const stageOf = new Map<Node, number>()
  for (const [index, end] of ends.entries()) {
    const waiting = [end.name]
    for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
      const node = producers.get(name)
      if (!node || !dependent.has(name) || stageOf.has(node)) continue
      stageOf.set(node, index)
      for (const input of node.inputs) if (input) waiting.push(input.name)
    }
  }
  return stageOf
}

/** What later stages read of the source and of the stages up to `index`, without what they can compute again. */
function liveBehind(
  { producers, dependent }: Described,
  stageOf: ReadonlyMap<Node, number>,
  index: number,
  source: Value,
  again: ReadonlySet<Op>,
): Value[] {
  const live = new Map<string, Value>()
  for (const [node, stage] of stageOf) {
    if (stage <= index) continue
    for (const input of node.inputs) {
      if (!input || !dependent.has(input.name)) continue
      const made = producers.get(input.name)
      const madeIn = made ? stageOf.get(made) : 0
      if (input.name === source.name || (madeIn !== undefined && madeIn <= index)) live.set(input.name, input)
    }
  }
  return [...live.values()].filter(({ name }) => {
    const node = producers.get(name)
    if (!node || !again.has(node.op)) return true
    return !node.inputs.every((input) => !input || !dependent.has(input.name) || live.has(input.name))
  })
}

/** The nodes behind `outputs`, up to the values that are known. */
function neededNodes(
  { producers }: Described,
  outputs: readonly Value[],
  known: ReadonlySet<string>,
): Set<Node> {
  const needed = new Set<Node>()
  const waiting = outputs.map(({ name }) => name)
  for (let name = waiting.pop(); name !== undefined; name = waiting.pop()) {
    if (known.has(name)) continue
    const node = producers.get(name)
    if (!node || needed.has(node)) continue
    needed.add(node)
    for (const input of node.inputs) if (input) waiting.push(input.name)
  }
  return needed
}
