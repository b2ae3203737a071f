import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { delimiter, dirname, resolve, sep } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { EngineError } from '../engine/errors.ts'
import { SERVED_WEIGHTS } from '../engine/generate/served-weights.ts'
import { parseDevice } from '../engine/onnx/device.ts'
import { SCOPES } from '../routes/scopes.ts'
import { readConfigFile } from './config-file.ts'

const count = z.number().int()
const path = z.string().min(1)
const digest = z.string().regex(/^[0-9a-f]{64}$/)
const apiKey = z.union([digest, z.strictObject({ sha256: digest, scopes: z.array(z.enum(SCOPES)).min(1) })], {
  error: `must be the SHA-256 of a key (64 lowercase hex digits), or { sha256, scopes } with scopes of ${SCOPES.join(', ')}`,
})
const device = z
  .string()
  .refine(isDevice, 'must be auto, cpu, webgpu, cuda or, for one of several GPUs, cuda:N')

/** The config file's form, with every default. Unknown keys are refused: a typing error must not pass in silence. */
export const configSchema = z.strictObject({
  directories: z
    .strictObject({
      models: z.array(path).min(1).default(['data/models']),
      datasets: path.default('data'),
      saves: path.default('saves'),
    })
    .prefault({}),
  /** The jobs' database; anneal.db inside the saves directory when left out. */
  database: path.optional(),
  device: device.default('auto'),
  server: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1'),
      port: count.min(0).max(65535).default(8000),
      allowedHosts: z.array(z.string().min(1)).default([]),
      allowedOrigins: z.array(z.url()).default([]),
      apiKeys: z.array(apiKey).default([]),
      drainSeconds: z.number().min(1).max(3600).default(60),
    })
    .prefault({}),
  limits: z
    .strictObject({
      uploadBytes: count.min(1).default(1024 ** 3),
      bodyBytes: count.min(1024).default(8 * 1024 ** 2),
      queuedJobs: count.min(1).default(100),
      queuedChats: count.min(1).default(64),
      contextTokens: count.min(16).default(8192),
      requestTokens: count.min(1).default(65_536),
    })
    .prefault({}),
  policy: z
    .strictObject({
      allowedBits: z
        .array(count.min(1).max(32))
        .refine((bits) => bits.includes(16), 'must contain 16, the width that is no quantization')
        .default([4, 8, 16]),
      minQuantizeParameters: z.number().min(0).default(700e6),
    })
    .prefault({}),
  concurrency: z
    .strictObject({
      train: count.min(1).max(64).default(1),
      merge: count.min(1).max(64).default(1),
      export: count.min(1).max(64).default(1),
      import: count.min(1).max(64).default(1),
      evaluation: count.min(1).max(64).default(1),
    })
    .prefault({}),
  /** Where `anneal pull` fetches base models. */
  hub: z
    .strictObject({
      endpoint: z.url({ protocol: /^https?$/ }).default('https://huggingface.co'),
      token: z.string().min(1).optional(),
    })
    .prefault({}),
  chat: z
    .strictObject({
      threads: count.min(0).max(1024).default(0),
      loadedModels: count.min(1).max(64).default(1),
      preload: z.array(z.string().min(1)).default([]),
      keepAliveMinutes: z.union([z.number().min(0), z.literal('forever')]).default(5),
      weights: z.enum(SERVED_WEIGHTS).default('float32'),
      /** Left out: the device above. */
      device: device.optional(),
      modelDevices: z.record(z.string(), device).default({}),
      modelWeights: z.record(z.string(), z.enum(SERVED_WEIGHTS)).default({}),
      adapters: z.enum(['ready', 'on demand']).default('ready'),
      concurrent: count.min(1).max(256).default(8),
      kvBytes: count.min(2 ** 20).optional(),
      prefixBytes: count.min(0).default(2 ** 28),
      promptLookup: z.boolean().optional(),
      loadedAdapters: count.min(1).max(10_000).default(16),
    })
    .prefault({}),
  /** Where report_to sends a run's curves. Clients may only choose among what is set up here. */
  tracking: z
    .strictObject({
      mlflow: z
        .strictObject({
          uri: z.url({ protocol: /^https?$/ }),
          experiment: z.string().min(1).default('anneal'),
          token: z.string().min(1).optional(),
        })
        .optional(),
    })
    .prefault({}),
  jobs: z.strictObject({ cancelGraceSeconds: z.number().min(0).max(86400).default(120) }).prefault({}),
  logLevel: z.enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']).default('info'),
})

/** What a config file may hold: every value is optional. */
export type ConfigInput = z.input<typeof configSchema>

/** The resolved settings: defaults filled in, every path absolute. */
export type Settings = z.output<typeof configSchema> & {
  /** The config file that was read. */
  configFile: string
  database: string
}

/** Widths and sizes that only the operator decides (src/policy.ts). */
export type Policy = Settings['policy']

export const CONFIG_NAME = 'wrangler-free.config.ts'

/** The folder of this package: where its data/, migrations/ and default config lie. */
export const packageRoot = resolve(dirname(fileURLToPath(import.meta.url)), '..')

/** Environment variables that override a value of the config file. */
const OVERRIDES: Record<string, (config: Overridable, value: string) => void> = {
  ANNEAL_MODELS_DIR: (config, value) => set(config, 'directories', 'models', value.split(delimiter)),
  ANNEAL_DATA_DIR: (config, value) => set(config, 'directories', 'datasets', value),
  ANNEAL_SAVES_DIR: (config, value) => set(config, 'directories', 'saves', value),
  ANNEAL_DATABASE: (config, value) => Object.assign(config, { database: value }),
  ANNEAL_DEVICE: (config, value) => Object.assign(config, { device: value }),
  ANNEAL_HOST: (config, value) => set(config, 'server', 'host', value),
  ANNEAL_PORT: (config, value) => set(config, 'server', 'port', asNumber(value)),
  ANNEAL_API_KEY: (config, value) => set(config, 'server', 'apiKeys', [sha256(value)]),
  ANNEAL_CHAT_THREADS: (config, value) => set(config, 'chat', 'threads', asNumber(value)),
  MLFLOW_TRACKING_URI: (config, value) => setMlflow(config, { uri: value }),
  MLFLOW_EXPERIMENT_NAME: (config, value) => setMlflow(config, { experiment: value }),
  MLFLOW_TRACKING_TOKEN: (config, value) => setMlflow(config, { token: value }),
  HF_ENDPOINT: (config, value) => set(config, 'hub', 'endpoint', value),
  HF_TOKEN: (config, value) => set(config, 'hub', 'token', value),
  ANNEAL_LOG_LEVEL: (config, value) => Object.assign(config, { logLevel: value }),
}

type Overridable = object

/**
 * Reads the operator's decisions: the config file, then the ANNEAL_* variables over it. The file is `ANNEAL_CONFIG`,
 * or wrangler-free.config.ts in `cwd`, or the one of this package. Relative paths in a config file start at its
 * folder, those of a variable at `cwd`.
 *
 * @throws EngineError `invalid` naming the file or variable and the field.
 */
export async function loadSettings(
  options: { env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<Settings> {
  const { env = process.env, cwd = process.cwd() } = options
  refuseUnknownVariables(env)
  const configFile = findConfig(env, cwd)
  const root = dirname(configFile)
  let config = parse(await readConfigFile(configFile), configFile)
  config = absolutePaths(config, root, writableRoot(root, cwd))
  const overridden = Object.keys(OVERRIDES).filter((name) => env[name])
  if (overridden.length > 0) {
    for (const name of overridden) OVERRIDES[name]!(config, env[name]!)
    config = absolutePaths(parse(config, overridden.join(', ')), cwd, cwd)
  }
  checkExposure(config)
  return {
    ...config,
    configFile,
    database: config.database ?? resolve(config.directories.saves, 'anneal.db'),
  }
}

function findConfig(env: NodeJS.ProcessEnv, cwd: string): string {
  if (env.ANNEAL_CONFIG) {
    const named = resolve(cwd, env.ANNEAL_CONFIG)
    if (!existsSync(named)) {
      throw invalid(
        'config_not_found',
        `ANNEAL_CONFIG names ${named}, which does not exist.`,
        'ANNEAL_CONFIG',
      )
    }
    return named
  }
  const local = resolve(cwd, CONFIG_NAME)
  return existsSync(local) ? local : resolve(packageRoot, CONFIG_NAME)
}

function parse(input: unknown, source: string): z.output<typeof configSchema> {
  const parsed = configSchema.safeParse(input)
  if (parsed.success) return parsed.data
  const problems = parsed.error.issues.map(
    (issue) => `${issue.path.join('.') || 'settings'}: ${issue.message}`,
  )
  throw invalid('config_invalid', `${source}: ${problems.join('; ')}`, parsed.error.issues[0]?.path.join('.'))
}

/** An installed package's own folder is replaced at its next update, so what is written goes to the user's folder. */
function writableRoot(root: string, cwd: string): string {
  return root === packageRoot && root.split(sep).includes('node_modules') ? cwd : root
}

function absolutePaths(
  config: z.output<typeof configSchema>,
  root: string,
  writable: string,
): z.output<typeof configSchema> {
  const { directories } = config
  return {
    ...config,
    directories: {
      models: directories.models.map((folder) => resolve(root, folder)),
      datasets: resolve(root, directories.datasets),
      saves: resolve(writable, directories.saves),
    },
    database: config.database === undefined ? undefined : resolve(writable, config.database),
  }
}

function refuseUnknownVariables(env: NodeJS.ProcessEnv): void {
  const known = [...Object.keys(OVERRIDES), 'ANNEAL_CONFIG']
  const unknown = Object.keys(env).find((name) => name.startsWith('ANNEAL_') && !known.includes(name))
  if (unknown === undefined) return
  throw invalid(
    'unknown_variable',
    `The environment variable ${unknown} is not known. Known: ${known.join(', ')}.`,
    unknown,
  )
}

/** A server that others can reach needs a key. */
function checkExposure({ server }: Pick<Settings, 'server'>): void {
  if (isLoopback(server.host) || server.apiKeys.length > 0) return
  throw invalid(
    'key_required',
    `server.host ${server.host} is reachable from other machines, so server.apiKeys must hold at least one key ` +
      '(or set ANNEAL_API_KEY). 127.0.0.1 needs none.',
    'server.apiKeys',
  )
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host)
}

function set(config: Overridable, section: string, key: string, value: unknown): void {
  const sections = config as Record<string, Record<string, unknown>>
  sections[section] = { ...sections[section], [key]: value }
}

/** MLflow's own variables; without an address they mean nothing here. */
function setMlflow(config: Overridable, values: { uri?: string; experiment?: string; token?: string }): void {
  const { tracking } = config as { tracking?: { mlflow?: object } }
  if (values.uri === undefined && !tracking?.mlflow) return
  set(config, 'tracking', 'mlflow', { ...tracking?.mlflow, ...values })
}

/** Text that is no number stays text, so that the schema names the field. */
function asNumber(value: string): number | string {
  return /^-?\d+$/.test(value.trim()) ? Number(value) : value
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function isDevice(text: string): boolean {
  try {
    parseDevice(text)
    return true
  } catch {
    return false
  }
}

function invalid(code: string, message: string, param?: string): EngineError {
  return new EngineError('invalid', code, message, { param })
}
