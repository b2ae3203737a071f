/**
 * Changes members of a JSON object in its text, leaving every other character as it is: parsed and written again, 30.0 would
 * become 30, which transformers refuses where it wants a fraction. Members that are not there yet go to the end.
 *
 * @param text a valid JSON object.
 */
export function changeJson(text: string, changes: Readonly<Record<string, unknown>>): string {
  let changed = text
  for (const [key, value] of Object.entries(changes)) {
    const { members, end } = membersOf(changed)
    // Of a key that is there twice, readers take the last.
    const found = members.filter((member) => member.key === key).at(-1)
    const written = JSON.stringify(value, null, 2).replaceAll('\n', '\n  ')
    if (found) changed = changed.slice(0, found.start) + written + changed.slice(found.end)
    else {
      const last = members.at(-1)?.end ?? end
      const member = `${members.length > 0 ? ',' : ''}\n  ${JSON.stringify(key)}: ${written}`
      changed = changed.slice(0, last) + member + (members.length > 0 ? '' : '\n') + changed.slice(last)
    }
  }
  return changed
}

interface Member {
  key: string
  /** Where the value stands in the text. */
  start: number
  end: number
}

/** Strings, brackets and separators; what lies between is of no matter here. */
const MARKS = /"(?:[^"\\]|\\.)*"|[[\]{},:]/g

/** The members of the outermost object, and where its closing brace stands. */
function membersOf(text: string): { members: Member[]; end: number } {
  const members: Member[] = []
  let depth = 0
  let key: string | undefined
  let start: number | undefined
  const close = (at: number) => {
    if (key === undefined || start === undefined) return
    const value = text.slice(start, at)
    const from = start + value.length - value.trimStart().length
    members.push({ key, start: from, end: from + value.trim().length })
    key = undefined
    start = undefined
  }
  for (const { 0: mark, index } of text.matchAll(MARKS)) {
    if (mark === '{' || mark === '[') depth++
    else if (mark === '}' || mark === ']') {
      depth--
      if (depth > 0) continue
      close(index)
      return { members, end: index }
    } else if (depth !== 1) continue
    else if (mark === ',') close(index)
    else if (mark === ':') start ??= index + 1
    else if (start === undefined) key = JSON.parse(mark) as string
  }
  throw new Error('the text is no JSON object')
}
