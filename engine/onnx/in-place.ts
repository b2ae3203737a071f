import type { Graph } from '../graph/graph.ts'

/**
 * The kept outputs that may be written in an input's memory, each with that input: rows scattered into a graph's input
 * that no other node reads. Onnxruntime's ScatterND copies only where its input and output lie in different places, so
 * what is not overwritten is what was fed. Whatever reads the input must do so before: so nothing but the scattering may,
 * or nodes that it waits for.
 */
export function updatedInPlace(graph: Graph, kept: readonly string[]): ReadonlyMap<string, string> {
  const inputs = new Set(graph.inputs.map(({ name }) => name))
  const outputs = new Set(graph.outputs.map(({ name }) => name))
  const updates = new Map<string, string>()
  for (const { op, inputs: read, outputs: made } of graph.nodes) {
    const [output, input] = [made[0]!.name, read[0]?.name]
    if (op !== 'ScatterND' || !kept.includes(output) || input === undefined) continue
    const readers = graph.nodes.filter((node) => node.inputs.some((value) => value?.name === input))
    if (inputs.has(input) && !outputs.has(input) && readers.length === 1) updates.set(output, input)
  }
  return updates
}
