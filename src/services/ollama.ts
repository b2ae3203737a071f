import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { EngineError } from '../../engine/errors.ts'
import { ggufFileTypeName } from '../../engine/export/gguf-types.ts'
import { readGgufFileHeader } from '../../engine/gguf/header.ts'
import { type ImageLayer, MANIFEST_TYPE } from '../../routes/schemas/ollama.ts'
import type { ExportFile, OllamaService, StoredFile } from '../../routes/services.ts'
import type { Job } from '../jobs/types.ts'
import type { ServiceContext } from './context.ts'
import { type Modelfile, readModelfile } from './modelfile.ts'
import { fileOf, filesOf } from './published.ts'

/** A layer that is made here, out of the Modelfile and the GGUF's header. */
interface MadeLayer {
  layer: ImageLayer
  bytes: Buffer
}

interface Image {
  model: ImageLayer
  config: MadeLayer
  made: MadeLayer[]
}

const MEDIA = 'application/vnd.ollama.image.'

/** Hands out exports that hold one GGUF file as images of Ollama's registry. */
export function ollamaService({ queue, leases }: ServiceContext): OllamaService {
  const find = async (id: string): Promise<Job> => {
    const job = await queue.get(id)
    if (job?.kind === 'export' && job.status === 'succeeded') return job
    throw new EngineError(
      'not_found',
      'image_not_found',
      `There is no finished export ${JSON.stringify(id.slice(0, 120))}.`,
    )
  }
  return {
    async manifest(id) {
      const { model, config, made } = await readImage(await find(id), leases)
      return {
        schemaVersion: 2,
        mediaType: MANIFEST_TYPE,
        config: config.layer,
        layers: [model, ...made.map(({ layer }) => layer)],
      }
    },
    async blob(id, sha256) {
      const job = await find(id)
      // Clients ask for the model in many ranges: its header must not be read anew for each.
      const model = filesOf(job).find((file) => isModel(file) && file.sha256 === sha256)
      if (model) return fileOf(job, model.path, leases)
      const { config, made } = await readImage(job, leases)
      const found = [config, ...made].find(({ layer }) => layer.digest === `sha256:${sha256}`)
      if (found) return storedBytes(found.bytes, sha256)
      throw new EngineError('not_found', 'blob_not_found', `${id} has no layer sha256:${sha256}.`, {
        param: 'digest',
      })
    },
  }
}

const isModel = ({ path }: ExportFile) => path.endsWith('.gguf')

async function readImage(job: Job, leases: ServiceContext['leases']): Promise<Image> {
  const files = filesOf(job)
  const models = files.filter(isModel)
  const [file] = models
  if (file === undefined || models.length > 1) {
    throw new EngineError(
      'not_found',
      'image_not_found',
      `${job.id} has ${models.length} GGUF files; an image for Ollama is an export with exactly one.`,
    )
  }
  const named = files.some(({ path }) => path === 'Modelfile')
  const modelfile = named ? await readText(fileOf(job, 'Modelfile', leases)) : ''
  const made = layersOf(readModelfile(modelfile))
  const model = { mediaType: `${MEDIA}model`, digest: `sha256:${file.sha256}`, size: file.bytes }
  const layers = [model, ...made.map(({ layer }) => layer)]
  return { model, made, config: configLayer(join(job.outputDir, file.path), layers) }
}

function layersOf({ template, system, license, parameters }: Modelfile): MadeLayer[] {
  const hasParameters = Object.keys(parameters).length > 0
  const texts: [kind: string, content: string | undefined][] = [
    ['template', template],
    ['system', system],
    ['license', license],
    ['params', hasParameters ? JSON.stringify(parameters) : undefined],
  ]
  return texts.flatMap(([kind, content]) =>
    content === undefined ? [] : [makeLayer(`${MEDIA}${kind}`, Buffer.from(content))],
  )
}

/** What Ollama shows of a model; https://github.com/ollama/ollama/blob/main/server/model.go (ConfigV2). */
function configLayer(ggufFile: string, layers: readonly ImageLayer[]): MadeLayer {
  const { metadata, tensors } = readGgufFileHeader(ggufFile)
  const architecture = String(metadata.get('general.architecture') ?? 'unknown')
  const parameters = [...tensors.values()].reduce(
    (sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1),
    0,
  )
  const config = {
    model_format: 'gguf',
    model_family: architecture,
    model_families: [architecture],
    model_type: humanNumber(parameters),
    file_type: ggufFileTypeName(metadata.get('general.file_type')) ?? 'unknown',
    architecture: 'amd64',
    os: 'linux',
    rootfs: { type: 'layers', diff_ids: layers.map(({ digest }) => digest) },
  }
  return makeLayer('application/vnd.docker.container.image.v1+json', Buffer.from(JSON.stringify(config)))
}

/** As Ollama writes counts (its format/format.go). */
function humanNumber(count: number): string {
  const [unit, name, digits] = count >= 1e9 ? [1e9, 'B', 1] : count >= 1e6 ? [1e6, 'M', 2] : [1e3, 'K', 0]
  if (count < 1e3) return String(count)
  const number = count / unit
  return `${number.toFixed(Number.isInteger(number) ? 0 : digits)}${name}`
}

function makeLayer(mediaType: string, bytes: Buffer): MadeLayer {
  const digest = `sha256:${createHash('sha256').update(bytes).digest('hex')}`
  return { layer: { mediaType, digest, size: bytes.length }, bytes }
}

function storedBytes(bytes: Buffer, sha256: string): StoredFile {
  return {
    path: sha256,
    sha256,
    size: bytes.length,
    read: async (start, end) => Readable.from([bytes.subarray(start, end + 1)], { objectMode: false }),
  }
}

/** Modelfiles are small; a larger file of that name is not read into memory. */
const MAX_MODELFILE_BYTES = 1_000_000

async function readText(file: StoredFile): Promise<string> {
  if (file.size === 0) return ''
  return text(await file.read(0, Math.min(file.size, MAX_MODELFILE_BYTES) - 1))
}
