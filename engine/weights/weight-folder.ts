import { closeSync, existsSync, read, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { z } from 'zod'
import { EngineError } from '../errors.ts'
import { decodeFloat32, type WeightDType } from './dtypes.ts'
import {
  MAX_HEADER_BYTES,
  openForRead,
  readBytes,
  readHeader,
  type SafetensorsDType,
  type TensorEntry,
} from './safetensors-header.ts'

const readAsync = promisify(read)

export const WEIGHTS_FILE = 'model.safetensors'
export const INDEX_FILE = 'model.safetensors.index.json'

const WEIGHT_DTYPES: Partial<Record<SafetensorsDType, WeightDType>> = {
  F32: 'float32',
  F16: 'float16',
  BF16: 'bfloat16',
}

/** The tensors of a model folder, whether they lie in one file or in shards. Holds the files open until `close`. */
export class WeightFolder {
  readonly folder: string
  readonly entries: ReadonlyMap<string, TensorEntry>
  /** What the files say about themselves; of shards, the first to name a key wins. */
  readonly metadata: Readonly<Record<string, string>>
  readonly #files: Map<string, number>

  private constructor(folder: string, contents: FolderContents) {
    this.folder = folder
    this.entries = contents.entries
    this.metadata = contents.metadata
    this.#files = contents.files
  }

  /**
   * Opens the weights of a folder in Hugging Face's layout: model.safetensors, or the shards that
   * model.safetensors.index.json lists, or only `fileName` when it is given.
   *
   * @throws EngineError `not_found` for missing files, `invalid` for malformed ones, naming them.
   */
  static open(folder: string, options: { fileName?: string } = {}): WeightFolder {
    const contents: FolderContents = { entries: new Map(), metadata: {}, files: new Map() }
    try {
      readFolder(folder, options.fileName, contents)
    } catch (error) {
      closeAll(contents.files)
      throw error
    }
    return new WeightFolder(folder, contents)
  }

  /** The same files with other headers, for code that asks about tensors without reading them. */
  withEntries(entries: ReadonlyMap<string, TensorEntry>): WeightFolder {
    return new WeightFolder(this.folder, {
      entries: new Map(entries),
      metadata: this.metadata,
      files: this.#files,
    })
  }

  has(name: string): boolean {
    return this.entries.has(name)
  }

  /** @throws EngineError `not_found` that lists similar names. */
  entry(name: string): TensorEntry {
    const entry = this.entries.get(name)
    if (entry) return entry
    const near = nearNames(name, this.entries.keys())
    const hint = near.length > 0 ? `; similar names are ${near.join(', ')}` : ''
    throw new EngineError('not_found', 'tensor_missing', `${this.folder} has no tensor ${name}${hint}`)
  }

  /** The element type of a tensor, if it is one that weights may have. @throws EngineError `unsupported` otherwise. */
  weightDType(name: string): WeightDType {
    const { dtype, file } = this.entry(name)
    const known = WEIGHT_DTYPES[dtype]
    if (known) return known
    throw new EngineError(
      'unsupported',
      'weight_dtype_unsupported',
      `tensor ${name} in ${join(this.folder, file)} is ${dtype}; weights must be F32, F16 or BF16`,
    )
  }

  /** A tensor's values, widened to float32. */
  readFloat32(name: string): Float32Array {
    const dtype = this.weightDType(name)
    return decodeFloat32(this.readRaw(name), dtype)
  }

  /** Rows [first, first + count) of a tensor's first axis, widened to float32. */
  readRows(name: string, first: number, count: number): Float32Array {
    const { byteLength, shape } = this.entry(name)
    const rowBytes = byteLength / (shape[0] ?? 1)
    return decodeFloat32(this.readPartSync(name, first * rowBytes, count * rowBytes), this.weightDType(name))
  }

  /** Fills `target` with a tensor's bytes from byte `start` on, without blocking the thread; returns it. */
  async readPart(name: string, start: number, target: Uint8Array): Promise<Uint8Array> {
    const { file, offset } = this.#place(name, start, target.length)
    const descriptor = this.#descriptor(file)
    for (let done = 0; done < target.length; ) {
      const { bytesRead } = await readAsync(descriptor, target, done, target.length - done, offset + done)
      if (bytesRead === 0) throw new Error(`${join(this.folder, file)} became shorter while it was read`)
      done += bytesRead
    }
    return target
  }

  /** `length` bytes of a tensor from byte `start` on, in memory of their own or in `target`, which is that long. */
  readPartSync(name: string, start: number, length: number, target?: Uint8Array): Uint8Array {
    const { file, offset } = this.#place(name, start, length)
    return readBytes(this.#descriptor(file), offset, length, join(this.folder, file), target)
  }

  /** A tensor's bytes as they stand in the file, in memory of their own. */
  readRaw(name: string): Uint8Array {
    return this.readPartSync(name, 0, this.entry(name).byteLength)
  }

  #place(name: string, start: number, length: number): { file: string; offset: number } {
    const { file, offset, byteLength } = this.entry(name)
    if (start + length > byteLength) throw new Error(`${name} has only ${byteLength} bytes`)
    return { file, offset: offset + start }
  }

  #descriptor(file: string): number {
    const descriptor = this.#files.get(file)
    if (descriptor === undefined) throw new Error(`${this.folder} is closed`)
    return descriptor
  }

  /** The entry of a tensor of a shape. @throws EngineError `not_found`, or `invalid` when its shape is another. */
  expectShape(name: string, shape: readonly number[]): TensorEntry {
    const entry = this.entry(name)
    if (entry.shape.join() === shape.join()) return entry
    throw new EngineError(
      'invalid',
      'weight_mismatch',
      `${entry.file}: ${name} has shape [${entry.shape}], but the config asks for [${shape}]`,
    )
  }

  close(): void {
    closeAll(this.#files)
  }
}

interface FolderContents {
  entries: Map<string, TensorEntry>
  metadata: Record<string, string>
  /** Open descriptors by file name. */
  files: Map<string, number>
}

function readFolder(folder: string, fileName: string | undefined, contents: FolderContents): void {
  const single = fileName ?? (existsSync(join(folder, WEIGHTS_FILE)) ? WEIGHTS_FILE : undefined)
  if (single !== undefined) {
    for (const entry of readFile(folder, single, contents)) contents.entries.set(entry.name, entry)
    return
  }
  if (!existsSync(join(folder, INDEX_FILE))) throw noWeights(folder)
  const wanted = new Map<string, string[]>()
  for (const [name, shard] of readIndex(join(folder, INDEX_FILE))) {
    const names = wanted.get(shard)
    if (names) names.push(name)
    else wanted.set(shard, [name])
  }
  for (const [shard, names] of wanted) readShard(folder, shard, names, contents)
}

function readShard(folder: string, shard: string, names: readonly string[], contents: FolderContents): void {
  const index = join(folder, INDEX_FILE)
  if (!existsSync(join(folder, shard))) {
    throw new EngineError(
      'not_found',
      'weights_missing',
      `${index} names ${shard}, which is not in the folder`,
    )
  }
  const inShard = new Map(readFile(folder, shard, contents).map((entry) => [entry.name, entry]))
  for (const name of names) {
    const entry = inShard.get(name)
    if (!entry) throw malformedIndex(index, `it says that ${name} is in ${shard}, which does not have it`)
    contents.entries.set(name, entry)
  }
}

function readFile(folder: string, file: string, contents: FolderContents): TensorEntry[] {
  const path = join(folder, file)
  const descriptor = openForRead(path)
  contents.files.set(file, descriptor)
  const { entries, metadata } = readHeader(descriptor, path)
  contents.metadata = { ...metadata, ...contents.metadata }
  return entries
}

const indexSchema = z.looseObject({ weight_map: z.record(z.string(), z.string()) })

/** Tensor name and shard of each line of an index. */
function readIndex(path: string): [name: string, shard: string][] {
  const { size } = statSync(path)
  if (size > MAX_HEADER_BYTES) {
    throw malformedIndex(path, `it has ${size} bytes; the limit is ${MAX_HEADER_BYTES}`)
  }
  let lines: [string, string][]
  try {
    lines = Object.entries(indexSchema.parse(JSON.parse(readFileSync(path, 'utf8'))).weight_map)
  } catch (cause) {
    throw malformedIndex(path, 'it needs a weight_map from tensor names to file names', cause)
  }
  for (const [name, shard] of lines) {
    if (!/^[^./\\\0][^/\\\0]*\.safetensors$/.test(shard)) {
      throw malformedIndex(
        path,
        `${name} is mapped to ${JSON.stringify(shard)}, which is not the plain name of a .safetensors file`,
      )
    }
  }
  return lines
}

function malformedIndex(path: string, problem: string, cause?: unknown): EngineError {
  return new EngineError('invalid', 'weights_index_malformed', `${path} is not a valid index: ${problem}`, {
    cause,
  })
}

function noWeights(folder: string): EngineError {
  const pickle = ['pytorch_model.bin', 'pytorch_model.bin.index.json'].find((file) =>
    existsSync(join(folder, file)),
  )
  const hint = pickle ? ` ${pickle} is a pickle, which can run code and is never read: convert it first.` : ''
  return new EngineError(
    'not_found',
    'weights_missing',
    `${folder} has neither ${WEIGHTS_FILE} nor ${INDEX_FILE}.${hint}`,
  )
}

/** Up to three names that share the longest beginning and end with `name`. */
function nearNames(name: string, names: Iterable<string>): string[] {
  const scored: [score: number, name: string][] = []
  for (const other of names) {
    const shorter = Math.min(name.length, other.length)
    let head = 0
    while (head < shorter && name[head] === other[head]) head++
    let tail = 0
    while (tail < shorter - head && name.at(-1 - tail) === other.at(-1 - tail)) tail++
    scored.push([(head + tail) / Math.max(name.length, other.length), other])
  }
  return scored
    .filter(([score]) => score > 0.5)
    .sort((a, b) => b[0] - a[0])
    .slice(0, 3)
    .map(([, near]) => near)
}

function closeAll(files: Map<string, number>): void {
  for (const descriptor of files.values()) closeSync(descriptor)
  files.clear()
}
