import { Environment, Template } from '@huggingface/jinja'

interface RuntimeValue {
  value: unknown
}
interface FunctionValue {
  value: (args: readonly RuntimeValue[]) => RuntimeValue
}
interface StringValue extends RuntimeValue {
  value: string
  builtins: Map<string, FunctionValue>
}

/** Which ends a method of strings takes characters from. */
const ENDS = { strip: [true, true], lstrip: [true, false], rstrip: [false, true] } as const

/**
 * Python's strip, lstrip and rstrip take the characters to remove; the library's methods ignore them and remove all white
 * space: `content.lstrip('\n')`, as Qwen3's template has it, would lose the indentation of code. The class of strings is not
 * exported, so it is had from a value.
 */
function repairStrip(): void {
  const { constructor: Text } = new Environment().set('text', '') as unknown as {
    constructor: { prototype: StringValue; new (text: string): StringValue }
  }
  const original = Object.getOwnPropertyDescriptor(Text.prototype, 'builtins')?.get
  if (original === undefined) throw new Error('@huggingface/jinja has strings of another form')
  const repaired = new WeakSet<object>()
  const builtins = function (this: StringValue): Map<string, FunctionValue> {
    const methods = original.call(this) as Map<string, FunctionValue>
    if (repaired.has(methods)) return methods
    repaired.add(methods)
    for (const [name, [left, right]] of Object.entries(ENDS)) {
      const method = methods.get(name)!
      const plain = method.value
      method.value = (args) => {
        const characters = args[0]?.value
        if (typeof characters !== 'string') return plain(args)
        return new Text(stripped(this.value, [...characters], left, right))
      }
    }
    return methods
  }
  Object.defineProperty(Text.prototype, 'builtins', { get: builtins, configurable: true })
}

function stripped(text: string, characters: readonly string[], left: boolean, right: boolean): string {
  const points = [...text]
  let start = 0
  let end = points.length
  while (left && start < end && characters.includes(points[start]!)) start++
  while (right && end > start && characters.includes(points[end - 1]!)) end--
  return points.slice(start, end).join('')
}

repairStrip()

/** A template of Jinja's source, whose line ends count as '\n', as in Jinja. */
export function parseTemplate(source: string): Template {
  return new Template(source.replaceAll(/\r\n?/g, '\n'))
}

export type { Template }
