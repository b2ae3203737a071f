import type { DecoderAdapter, DecoderStep } from './decoder.ts'
import type { Job } from './job.ts'
import type { KvGroup } from './kv-group.ts'

/** The step that feeds the next `count` tokens of one sequence. */
export function prefillStep(job: Job, count: number): DecoderStep {
  const { length } = job.row!
  return sequenceStep(job, job.tokens.subarray(length, length + count), [count - 1])
}

/** The step that feeds a decoding sequence's token and those that are guessed to follow, with logits after each. */
export function guessedStep(job: Job, guess: Int32Array): DecoderStep {
  const tokens = Int32Array.of(job.sequence.lastToken, ...guess)
  return sequenceStep(job, tokens, [...tokens.keys()])
}

function sequenceStep(job: Job, fed: Int32Array, rows: readonly number[]): DecoderStep {
  const { group, index, length } = job.row!
  const tokens = BigInt64Array.from(fed, BigInt)
  return {
    batch: 1,
    seq: fed.length,
    tokens,
    positions: BigInt64Array.from(tokens, (_, at) => BigInt(length + at)),
    past: group.past([index], length === 0),
    rows,
    want: job.sequence.greedy ? 'largest' : 'logits',
    adapters: [job.adapter],
  }
}

/**
 * The step that feeds one token to each decoding sequence of a group. Rows that the group
 * feeds along with theirs are computed and ignored. Returns the decoding jobs by row of the batch.
 */
export function decodeStep(
  group: KvGroup,
  jobs: readonly Job[],
): { step: DecoderStep; byRow: (Job | undefined)[] } {
  const jobOf = new Map(jobs.map((job) => [job.row!.index, job]))
  const batchRows = group.batchOf([...jobOf.keys()])
  const byRow = batchRows.map((index) => jobOf.get(index))
  const batch = byRow.length
  const tokens = new BigInt64Array(batch)
  const positions = new BigInt64Array(batch)
  const adapters: (DecoderAdapter | undefined)[] = []
  const rows: number[] = []
  for (let index = 0; index < batch; index++) {
    const job = byRow[index]
    adapters.push(job?.adapter)
    if (!job) continue
    tokens[index] = BigInt(job.tokens[job.known - 1]!)
    positions[index] = BigInt(job.row!.length)
    rows.push(index)
  }
  const want = jobs.every((job) => job.sequence.greedy) ? 'largest' : 'logits'
  const past = group.past(batchRows)
  return { step: { batch, seq: 1, tokens, positions, past, rows, want, adapters }, byRow }
}
