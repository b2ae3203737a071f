import { deflateRawSync } from 'node:zlib'

/** A zip archive of files by their names, packed. Readers that check CRCs would refuse it: there are none in it. */
export function zipOf(files: Readonly<Record<string, Buffer>>): Buffer {
  const locals: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const [path, content] of Object.entries(files)) {
    const name = Buffer.from(path)
    const packed = deflateRawSync(content)
    const sizes = [0, packed.length, content.length]
    const local = Buffer.concat([
      longs([0x04034b50]),
      shorts([20, 0, 8, 0, 0]),
      longs([...sizes]),
      shorts([name.length, 0]),
      name,
    ])
    const central = Buffer.concat([
      longs([0x02014b50]),
      shorts([20, 20, 0, 8, 0, 0]),
      longs([...sizes]),
      shorts([name.length, 0, 0, 0, 0]),
      longs([0, offset]),
      name,
    ])
    locals.push(local, packed)
    directory.push(central)
    offset += local.length + packed.length
  }
  const bytes = directory.reduce((sum, { length }) => sum + length, 0)
  const end = Buffer.concat([
    longs([0x06054b50]),
    shorts([0, 0, directory.length, directory.length]),
    longs([bytes, offset]),
    shorts([0]),
  ])
  return Buffer.concat([...locals, ...directory, end])
}

function longs(numbers: readonly number[]): Buffer {
  return shorts(numbers.flatMap((number) => [number & 0xffff, number >>> 16]))
}

function shorts(numbers: readonly number[]): Buffer {
  const bytes = Buffer.alloc(numbers.length * 2)
  numbers.forEach((number, index) => {
    bytes.writeUInt16LE(number, index * 2)
  })
  return bytes
}
