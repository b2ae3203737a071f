/**
 * Just enough of WebAssembly's binary format (https://webassembly.github.io/spec/core/binary) to write small loops over
 * SIMD lanes in it. Code is nested arrays of bytes; a name that begins with v, f or i is the instruction's in the spec.
 */
export type Code = readonly (number | Code)[]

/** An unsigned number in LEB128. */
function leb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  do {
    bytes.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>>= 7
  } while (rest > 0)
  return bytes
}

/** A signed number in LEB128, as constants are written. */
function signedLeb(value: number): number[] {
  const bytes: number[] = []
  let rest = value
  for (;;) {
    const byte = rest & 0x7f
    rest >>= 7
    const isLast = (rest === 0 && !(byte & 0x40)) || (rest === -1 && byte & 0x40)
    bytes.push(isLast ? byte : byte | 0x80)
    if (isLast) return bytes
  }
}

const simd = (opcode: number): Code => [0xfd, leb(opcode)]
/** Loads and stores state an alignment (1: none is promised) and an offset. */
const access = (opcode: number, offset: number): Code => [simd(opcode), 0, leb(offset)]

export const get = (local: number): Code => [0x20, leb(local)]
export const set = (local: number): Code => [0x21, leb(local)]
export const i32Const = (value: number): Code => [0x41, signedLeb(value)]
export const f32Const = (value: number): Code => [0x43, ...new Uint8Array(Float32Array.of(value).buffer)]
export const f64Const = (value: number): Code => [0x44, ...new Uint8Array(Float64Array.of(value).buffer)]
export const i32Add: Code = [0x6a]
const i32LessThan: Code = [0x49]
/** How many zeros there are below the lowest one. */
export const i32TrailingZeros: Code = [0x68]
export const i32Or: Code = [0x72]
export const i32ShiftLeft: Code = [0x74]
export const i32Store = (offset = 0): Code => [0x36, 0, leb(offset)]
/** Stores the lower 8 bits. */
export const i32Store8 = (offset = 0): Code => [0x3a, 0, leb(offset)]
/** Stores the lower 16 bits. */
export const i32Store16 = (offset = 0): Code => [0x3b, 0, leb(offset)]
export const v128Load = (offset = 0): Code => access(0, offset)
export const v128LoadSplat = (offset = 0): Code => access(9, offset)
export const v128Store = (offset = 0): Code => access(11, offset)
/** The bytes that are numbered, of two vectors in a row. */
export const i8x16Shuffle = (bytes: readonly number[]): Code => [simd(13), ...bytes]
export const i8x16Splat = simd(15)
export const i16x8Splat = simd(16)
export const i32x4Splat = simd(17)
export const f32x4Splat = simd(19)
export const f64x2Splat = simd(20)
export const i32x4GreaterThan = simd(59)
/** Of numbers without a sign. */
export const i16x8AtLeast = simd(54)
export const f32x4Equal = simd(65)
export const f32x4LessThan = simd(67)
export const f64x2Equal = simd(71)
export const v128And = simd(78)
/** a and not b. */
export const v128AndNot = simd(79)
export const v128Or = simd(80)
/** The bits of a where the mask has ones, those of b elsewhere. */
export const v128Select = simd(82)
export const v128AnyTrue = simd(83)
/** Two float64 as the first two float32, with zeros behind. */
export const f32x4Demote = simd(94)
/** The first two float32 as float64. */
export const f64x2Promote = simd(95)
export const f32x4Truncate = simd(105)
/** To the nearest whole number, ties to the even one. */
export const f32x4Nearest = simd(106)
/** Two vectors of eight signed numbers to one of sixteen, clamped to 0…255. */
export const i8x16Narrow = simd(102)
/** The same, clamped to −128…127. */
export const i8x16NarrowSigned = simd(101)
/** Two vectors of four signed numbers to one of eight, clamped to 0…65,535. */
export const i16x8Narrow = simd(134)
/** The same, clamped to −32,768…32,767. */
export const i16x8NarrowSigned = simd(133)
export const i8x16ShiftLeft = simd(107)
export const i16x8ShiftLeft = simd(139)
/** The larger one of numbers without a sign. */
export const i16x8Max = simd(153)
export const i8x16ShiftRight = simd(109)
export const f64x2Floor = simd(117)
export const i8x16Min = simd(119)
/** The first number of a vector. */
export const i32x4First: Code = [simd(27), 0]
/** The sign of each number as a bit. */
export const i32x4Signs = simd(164)
export const i32x4ExtendLow = simd(169)
export const i32x4ExtendHigh = simd(170)
export const i32x4ShiftLeft = simd(171)
export const i32x4ShiftRight = simd(173)
export const i32x4Add = simd(174)
export const i32x4Sub = simd(177)
export const i32x4Min = simd(183)
/** To a whole number, without the fraction. */
export const i32x4Truncate = simd(248)
export const f32x4Abs = simd(224)
export const f32x4Sqrt = simd(227)
export const f32x4Add = simd(228)
export const f32x4Sub = simd(229)
export const f32x4Mul = simd(230)
export const f32x4Div = simd(231)
/** The smaller one; the first if either is NaN or both are 0. One machine instruction, unlike the spec's min. */
export const f32x4Min = simd(234)
/** The larger one, as f32x4Min. */
export const f32x4Max = simd(235)
export const f64x2Add = simd(240)
export const f64x2Sub = simd(241)
export const f64x2Mul = simd(242)
export const f64x2Div = simd(243)
export const f64x2Min = simd(244)
/** Whole numbers as float32. */
export const f32x4Convert = simd(250)
/** Two float64 to whole numbers without the fraction, in the first two places of four; NaN to 0. */
export const i32x4TruncateDoubles = simd(252)
/** The first two whole numbers as float64. */
export const f64x2Convert = simd(254)

/** `local += amount` */
export const advance = (local: number, amount: number): Code => [
  get(local),
  i32Const(amount),
  i32Add,
  set(local),
]

/** Repeats `body` as long as `local` is below `end` after it; the first time always. */
export const repeatBelow = (local: number, end: number, body: Code): Code => [
  [0x03, 0x40],
  body,
  [get(local), get(end), i32LessThan],
  [0x0d, 0x00],
  0x0b,
]

/** Repeats `body` while `local` is below `end`. */
export const whileBelow = (local: number, end: number, body: Code): Code => [
  [get(local), get(end), i32LessThan],
  [0x04, 0x40],
  repeatBelow(local, end, body),
  0x0b,
]

export interface WasmFunction {
  name: string
  /** Number of i32 parameters; they are locals 0, 1, … */
  parameters: number
  /** Whether it returns an i32. */
  returns: boolean
  /** Further locals, after the parameters: i32 first, then v128. */
  integers: number
  vectors: number
  body: Code
}

const [I32, V128] = [0x7f, 0x7b]

/** The most pages of 64 KB that a shared memory may grow to. */
export const MOST_SHARED_PAGES = 16_384

/** A module with one exported memory, its own or a shared one that it imports, and these functions. */
export function wasmModule(
  functions: readonly WasmFunction[],
  memory: 'own' | 'shared' = 'own',
): Uint8Array<ArrayBuffer> {
  const types = functions.map(({ parameters, returns }) => [
    0x60,
    list(Array.from({ length: parameters }, () => [I32])),
    list(returns ? [[I32]] : []),
  ])
  const exports = [
    [name('memory'), 0x02, 0],
    ...functions.map((each, index) => [name(each.name), 0x00, leb(index)]),
  ]
  return Uint8Array.from(
    flatten([
      [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, list(types)),
      memory === 'shared'
        ? section(2, list([[name('shared'), name('memory'), 0x02, 0x03, 1, leb(MOST_SHARED_PAGES)]]))
        : [],
      section(3, list(functions.map((_, index) => leb(index)))),
      memory === 'own' ? section(5, list([[0x00, 1]])) : [],
      section(7, list(exports)),
      section(10, list(functions.map(codeOf))),
    ]),
  )
}

function codeOf({ integers, vectors, body }: WasmFunction): Code {
  const locals = list([
    [leb(integers), I32],
    [leb(vectors), V128],
  ])
  return sized([locals, body, 0x0b])
}

const name = (text: string): Code => sized([...Buffer.from(text)])
const list = (items: readonly Code[]): Code => [leb(items.length), ...items]
const section = (id: number, content: Code): Code => [id, sized(content)]

function sized(content: Code): Code {
  const bytes = flatten(content)
  return [leb(bytes.length), bytes]
}

function flatten(code: Code): number[] {
  return code.flatMap((part) => (typeof part === 'number' ? [part] : flatten(part)))
}
