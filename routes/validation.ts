/** The parts of a zod issue that its description needs; wide enough for issues of every schema. */
export interface Issue {
  code?: string | undefined
  path: PropertyKey[]
  message: string
  keys?: string[]
  errors?: Issue[][]
  params?: Record<string, unknown> | undefined
}

interface Fault {
  path: string
  message: string
  code: string
}

function codeOf(issue: Issue): string {
  if (typeof issue.params?.code === 'string') return issue.params.code
  return issue.message.endsWith('received undefined') ? 'missing_field' : 'invalid_value'
}

/** A union reports every branch; the one that got furthest into the value is the one that was meant. */
function furthestBranch(branches: Issue[][]): Issue[] {
  const depth = (issues: Issue[]) => Math.max(0, ...issues.map((issue) => issue.path.length))
  return branches.reduce<Issue[]>((best, branch) => (depth(branch) > depth(best) ? branch : best), [])
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
  const meant = issue.code === 'invalid_union' ? furthestBranch(issue.errors ?? []) : []
  if (meant.length > 0) return meant.flatMap((inner) => faultsOf(inner, path))
  return [{ path: path.map(String).join('.'), message: issue.message, code: codeOf(issue) }]
}

/**
 * Describes the issues of a failed validation: `param` and `code` are the first failing field's, the message lists all of
 * them.
 */
export function describeIssues(issues: Issue[]): { code: string; message: string; param?: string } {
  const faults = issues.flatMap((issue) => faultsOf(issue, []))
  const first = faults[0]
  const message = faults
    .map(({ path, message }) => (path === '' ? message : `${path}: ${message}`))
    .join('; ')
  return {
    code: first?.code ?? 'invalid_value',
    message: message === '' ? 'The request is not valid.' : message,
    ...(first && first.path !== '' ? { param: first.path } : {}),
  }
}
