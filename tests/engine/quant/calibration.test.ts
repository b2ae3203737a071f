import { describe, expect, it } from 'vitest'
import { calibrationWindows } from '../../../engine/quant/calibration.ts'

const encode = (text: string) => Int32Array.from(text, (letter) => letter.charCodeAt(0))
const texts = [
  'short',
  'exactly ten',
  'a text that is long enough for windows',
  'another one of a fair length',
]

describe('calibrationWindows', () => {
  it('cuts equal windows for equal seeds, and others for others', () => {
    const cut = (seed: number) => calibrationWindows(texts, encode, { samples: 8, length: 11, seed })
    expect(cut(1)).toEqual(cut(1))
    expect(cut(1)).not.toEqual(cut(2))
    expect(cut(1).every((window) => window.length === 11)).toBe(true)
  })

  it('takes only texts with more tokens than a window has', () => {
    const windows = calibrationWindows(texts, encode, { samples: 50, length: 11, seed: 1 })
    const found = new Set(windows.map((window) => String.fromCharCode(...window)))
    expect(found.has('exactly ten')).toBe(false)
    expect([...found].every((part) => texts.some((text) => text.includes(part)))).toBe(true)
  })

  it('says which field to lower when no text is long enough', () => {
    expect(() => calibrationWindows(texts, encode, { samples: 1, length: 100, seed: 1 })).toThrow(
      expect.objectContaining({ code: 'calibration_too_short', param: 'export_quantization_maxlen' }),
    )
  })
})
