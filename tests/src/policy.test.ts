import { describe, expect, it } from 'vitest'
import { exportRequest } from '../../routes/schemas/artifacts.ts'
import { checkExport, checkMerge, type PolicySubject } from '../../src/policy.ts'
import { configSchema } from '../../src/settings.ts'

const { policy } = configSchema.parse({})

function subject(changes: Partial<PolicySubject> = {}): PolicySubject {
  return { id: 'merge-1', parameters: 1.5e9, isAdapter: false, isQuantized: false, ...changes }
}

describe('checkExport', () => {
  it.each([2, 3, 5, 6, 7, 12])('refuses %i bits with the reason and the widths that are allowed', (bits) => {
    expect(() => checkExport(subject(), bits, policy)).toThrow(
      expect.objectContaining({ kind: 'refused', code: 'bits_not_allowed', param: 'bits' }),
    )
    expect(() => checkExport(subject(), bits, policy)).toThrow(/Allowed: 4, 8, 16/)
  })

  it.each([4, 8])('refuses a 0.5B model at %i bits, naming its size and what to do', (bits) => {
    const small = subject({ parameters: 494_032_768 })
    expect(() => checkExport(small, bits, policy)).toThrow(/494 M parameters; models below 700 M/)
    expect(() => checkExport(small, bits, policy)).toThrow(/16 bits instead/)
  })

  it.each([4, 8])('lets a model of 700 M parameters pass at %i bits', (bits) => {
    expect(() => checkExport(subject({ parameters: 700e6 }), bits, policy)).not.toThrow()
  })

  it('lets every merged model pass at 16 bits', () => {
    expect(() => checkExport(subject({ parameters: 1 }), 16, policy)).not.toThrow()
  })

  it.each([4, 16])('refuses an unmerged adapter at %i bits: merge first', (bits) => {
    expect(() => checkExport(subject({ isAdapter: true }), bits, policy)).toThrow(/merge the adapter first/)
  })

  it('refuses to quantize a quantized model', () => {
    expect(() => checkExport(subject({ isQuantized: true }), 4, policy)).toThrow(
      expect.objectContaining({ code: 'already_quantized' }),
    )
  })

  it("is lifted by the operator's config", () => {
    const lifted = configSchema.parse({ policy: { allowedBits: [2, 16], minQuantizeParameters: 0 } }).policy
    expect(() => checkExport(subject({ parameters: 1e6 }), 2, lifted)).not.toThrow()
  })

  it('is lifted by no field of a request', () => {
    const body = { model: 'merge-1', bits: 4 }
    for (const field of [
      'policy',
      'allowedBits',
      'minQuantizeParameters',
      'parameters',
      'force',
      'override',
    ]) {
      expect(exportRequest.safeParse({ ...body, [field]: true }).success).toBe(false)
    }
    const { bits } = exportRequest.parse(body)
    expect(() => checkExport(subject({ parameters: 494e6 }), bits, policy)).toThrow(/494 M/)
  })
})

describe('checkMerge', () => {
  it('refuses a quantized base', () => {
    expect(() => checkMerge(subject({ isQuantized: true }))).toThrow(
      expect.objectContaining({ kind: 'refused', code: 'base_quantized' }),
    )
    expect(() => checkMerge(subject())).not.toThrow()
  })
})
