import { EngineError, messageOf } from '../errors.ts'
import { withTimeLimit } from '../time-limit.ts'

/**
 * Which linear modules an adapter is on, by PEFT's rules: 'all' (every one but the head and routed experts), a
 * list of names that paths end with on a dot border, or any other text, a regular expression for the whole path.
 */
export type TargetModules = string | readonly string[]

const ALL_LINEAR = 'all'

/** Narrows a list of names to some layers, as PEFT's layers_to_transform and layers_pattern do. */
export interface LayerChoice {
  readonly layers_to_transform?: number | readonly number[] | null | undefined
  readonly layers_pattern?: string | readonly string[] | null | undefined
}

/** A module of the base as the rules see it. */
export interface TargetCandidate {
  readonly path: string
  readonly expert?: true | undefined
}

/** A hostile expression could backtrack for ever. Ordinary ones take a millisecond; the rest is for busy machines. */
const MATCH_LIMIT_MS = 1000

/**
 * The paths that a rule names.
 *
 * @throws EngineError `invalid` for an expression that is malformed or takes too long.
 */
export function targetedPaths(
  modules: readonly TargetCandidate[],
  targets: TargetModules,
  choice: LayerChoice = {},
): Set<string> {
  if (typeof targets === 'string' && targets !== ALL_LINEAR) return matchingPaths(modules, targets)
  const isNamed = (path: string) =>
    typeof targets === 'string' || targets.some((name) => endsWith(path, name))
  const chosen = modules.filter(({ path, expert }) => {
    if (targets === ALL_LINEAR && (expert || endsWith(path, 'lm_head'))) return false
    return isNamed(path) && (targets.includes(path) || isInChosenLayer(path, choice))
  })
  return new Set(chosen.map(({ path }) => path))
}

/** The names of a list, or the whole of another rule, that match no module. */
export function unmatchedTargets(
  modules: readonly TargetCandidate[],
  targets: TargetModules,
  choice: LayerChoice = {},
): string[] {
  const parts: TargetModules[] = typeof targets === 'string' ? [targets] : targets.map((name) => [name])
  return parts
    .filter((part) => targetedPaths(modules, part, choice).size === 0)
    .map((part) => (typeof part === 'string' ? part : part[0]!))
}

/** The error for targets that match nothing, with what the model has. */
export function noSuchTarget(missing: readonly string[], modules: readonly TargetCandidate[]): EngineError {
  const known = [...new Set(modules.map(({ path }) => path.split('.').at(-1)!))]
  return new EngineError(
    'invalid',
    'lora_target_unknown',
    `lora_target ${missing.join(', ')} matches no linear module of this model; it has ${known.join(', ')}`,
    { param: 'lora_target' },
  )
}

/**
 * The value of a module in PEFT's rank_pattern or alpha_pattern: keys are expressions for the end of the path, from a dot
 * border; the first that matches wins.
 */
export function patternValue(
  pattern: Readonly<Record<string, number>> | null | undefined,
  path: string,
  otherwise: number,
): number {
  for (const [key, value] of Object.entries(pattern ?? {})) {
    if (matchesPattern(path, key)) return value
  }
  return otherwise
}

/** Whether a key of rank_pattern or alpha_pattern means a module. */
export function matchesPattern(path: string, key: string): boolean {
  return matchingPaths([{ path }], `(.*\\.)?(${key})`, 'rank_pattern').size > 0
}

function endsWith(path: string, name: string): boolean {
  return path === name || path.endsWith(`.${name}`)
}

/** PEFT reads the layer's number behind the first pattern's name that fits, or else behind any name. */
function isInChosenLayer(
  path: string,
  { layers_to_transform: layers, layers_pattern: pattern }: LayerChoice,
) {
  const wanted = [layers ?? []].flat()
  if (wanted.length === 0) return true
  const names = [pattern ?? []].flat()
  const anywhere = /^.*?\.[^.]*\.(\d+)\./
  const found = names.length === 0 ? anywhere.exec(path) : firstMatch(path, names)
  return found !== null && wanted.includes(Number(found[1]))
}

function firstMatch(path: string, names: readonly string[]): RegExpExecArray | null {
  for (const name of names) {
    const escaped = name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&')
    const match = new RegExp(`^(?:.*?\\.)?${escaped}\\.(\\d+)\\.`).exec(path)
    if (match) return match
  }
  return null
}

/** Expressions come from users, so they run where they can be stopped. */
function matchingPaths(
  modules: readonly TargetCandidate[],
  expression: string,
  param = 'lora_target',
): Set<string> {
  const paths = modules.map(({ path }) => path)
  const match = () => {
    const whole = new RegExp(`^(?:${expression})$`)
    return paths.filter((path) => whole.test(path))
  }
  const late = () => new Error(`matching timed out after ${MATCH_LIMIT_MS} ms`)
  try {
    return new Set(withTimeLimit(match, MATCH_LIMIT_MS, late))
  } catch (cause) {
    const reason = messageOf(cause)
    throw new EngineError(
      'invalid',
      'invalid_expression',
      `${JSON.stringify(expression.slice(0, 200))} cannot be used as a regular expression for module paths: ${reason}`,
      { param, cause },
    )
  }
}
