/** A JSON number as it was written: 1.0 and 1 are one number in JavaScript and two in Python. */
class NumberText {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** Marks numbers while JSON.parse reads them; no JSON text can begin a string like this unescaped. */
const MARK = '\u0000number:'
const STRING_OR_NUMBER = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g

/**
 * JSON text as values that pythonJson writes as Python's json module would write what it has read.
 * @throws SyntaxError as JSON.parse does.
 */
export function readJson(text: string): unknown {
  JSON.parse(text)
  const marked = text.replace(STRING_OR_NUMBER, (part) =>
    part.startsWith('"') ? part : JSON.stringify(MARK + part),
  )
  return JSON.parse(marked, (_, value: unknown) =>
    typeof value === 'string' && value.startsWith(MARK) ? new NumberText(value.slice(MARK.length)) : value,
  )
}

/**
 * A value as Python's `json.dumps(value, ensure_ascii=False, indent=indent)` writes it: blanks behind commas and colons, or
 * lines indented by `indent` blanks.
 */
export function pythonJson(value: unknown, indent?: number, depth = 0): string {
  if (value instanceof NumberText) return pythonNumber(value.text)
  if (typeof value !== 'object' || value === null) return JSON.stringify(value ?? null)
  const isList = Array.isArray(value)
  const items = isList
    ? value.map((item) => pythonJson(item, indent, depth + 1))
    : Object.entries(value)
        .filter(([, item]) => item !== undefined)
        .map(([key, item]) => `${JSON.stringify(key)}: ${pythonJson(item, indent, depth + 1)}`)
  const [open, close] = isList ? '[]' : '{}'
  if (items.length === 0) return `${open}${close}`
  if (indent === undefined) return `${open}${items.join(', ')}${close}`
  const line = (level: number) => `\n${' '.repeat(indent * level)}`
  return `${open}${line(depth + 1)}${items.join(`,${line(depth + 1)}`)}${line(depth)}${close}`
}

/** An integer keeps its digits; a float is written by Python's repr: with an exponent below 1e-4 and from 1e16 on. */
function pythonNumber(text: string): string {
  if (/^-?\d+$/.test(text)) return text === '-0' ? '0' : text
  const value = Number(text)
  if (!Number.isFinite(value)) return value < 0 ? '-Infinity' : 'Infinity'
  const [digits = '', exponent = '0'] = value.toExponential().split('e')
  const power = Number(exponent)
  if (value !== 0 && (power < -4 || power >= 16)) {
    return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`
  }
  const fixed = Object.is(value, -0) ? '-0' : String(value)
  return fixed.includes('.') ? fixed : `${fixed}.0`
}
