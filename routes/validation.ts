/** The parts of a zod issue that its description needs; wide enough for issues of every schema. */
export interface Issue {
  code?: string | undefined
  path: PropertyKey[]
  message: string
  keys?: string[]
  /** The type that was wanted, of an issue about types, or the values, of one about values. */
  expected?: string
  values?: unknown[]
  errors?: Issue[][]
  params?: Record<string, unknown> | undefined
}

interface Fault {
  path: string
  message: string
  code: string
}

const isMissing = ({ message }: Issue) => message.endsWith('received undefined')

function codeOf(issue: Issue): string {
  if (typeof issue.params?.code === 'string') return issue.params.code
  const branches = issue.errors?.flat() ?? []
  return isMissing(issue) || branches.some(isMissing) ? 'missing_field' : 'invalid_value'
}

/** Issues of a value that has the type that was wanted. */
const OF_RIGHT_TYPE = ['too_small', 'too_big', 'custom', 'invalid_format']

/**
 * A union reports every branch; the one that got furthest into the value is the one that was meant, or that whose type the
 * value has.
 */
function meantBranch(branches: Issue[][]): Issue[] {
  const depth = (issues: Issue[]) =>
    Math.max(
      0,
      ...issues.map(({ path, code = '' }) =>
        path.length === 0 && OF_RIGHT_TYPE.includes(code) ? Number.POSITIVE_INFINITY : path.length,
      ),
    )
  return branches.reduce<Issue[]>((best, branch) => (depth(branch) > depth(best) ? branch : best), [])
}

/** What a value that is of no branch's type could have been. */
function messageOf({ message, errors = [] }: Issue): string {
  const wanted = errors.flat().flatMap(({ expected, values }) => {
    return values?.map((value) => JSON.stringify(value)) ?? expected ?? []
  })
  return wanted.length === 0 ? message : `must be one of: ${[...new Set(wanted)].join(', ')}`
}

function faultsOf(issue: Issue, prefix: PropertyKey[]): Fault[] {
  const path = [...prefix, ...issue.path]
  if (issue.code === 'unrecognized_keys' && issue.keys) {
    return issue.keys.map((key) => ({
      path: [...path, key].map(String).join('.'),
      message: 'unknown field',
      code: 'unknown_field',
    }))
  }
  const meant = issue.code === 'invalid_union' ? meantBranch(issue.errors ?? []) : []
  if (meant.length > 0) return meant.flatMap((inner) => faultsOf(inner, path))
  return [{ path: path.map(String).join('.'), message: messageOf(issue), code: codeOf(issue) }]
}

/** Faults that a message lists. */
const SHOWN = 10

/**
 * Describes the issues of a failed validation: `param` and `code` are the first failing field's, the message lists the
 * first ten.
 */
export function describeIssues(issues: Issue[]): { code: string; message: string; param?: string } {
  const faults = issues.flatMap((issue) => faultsOf(issue, []))
  const first = faults[0]
  const listed = faults
    .slice(0, SHOWN)
    .map(({ path, message }) => (path === '' ? message : `${path}: ${message}`))
    .join('; ')
  const message = faults.length > SHOWN ? `${listed}; and ${faults.length - SHOWN} more` : listed
  return {
    code: first?.code ?? 'invalid_value',
    message: message === '' ? 'The request is not valid.' : message,
    ...(first && first.path !== '' ? { param: first.path } : {}),
  }
}
