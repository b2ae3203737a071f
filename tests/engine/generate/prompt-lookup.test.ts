import { describe, expect, it } from 'vitest'
import { PromptLookup } from '../../../engine/generate/prompt-lookup.ts'

const tokens = (text: string) => Int32Array.from(Buffer.from(text))
const text = (guess: Int32Array) => Buffer.from(guess).toString()
const guess = (lookup: PromptLookup, known: string, most = 100) => text(lookup.guess(tokens(known), most))

describe('PromptLookup', () => {
  it('guesses what followed the last three tokens where they stood before', () => {
    expect(guess(new PromptLookup(9), 'one two; one')).toBe(' tw')
    expect(guess(new PromptLookup(9), 'one two; on')).toBe('')
  })

  it('takes the longest match, and the last one among equals', () => {
    expect(guess(new PromptLookup(0), 'a house, the mouse, my house')).toBe(', t')
    expect(guess(new PromptLookup(0), 'abcX abcY abc')).toBe('Y a')
  })

  it('never guesses past what is known, nor more than is wanted', () => {
    expect(guess(new PromptLookup(0), 'aaaa')).toBe('a')
    expect(guess(new PromptLookup(0), 'abcdefabc', 2)).toBe('de')
    expect(guess(new PromptLookup(0), 'abcdefabc', 0)).toBe('')
    expect(guess(new PromptLookup(0), '')).toBe('')
  })

  it('guesses more after guesses that came true', () => {
    const lookup = new PromptLookup(0)
    const known = `${'abcdefghijklmnopqrstuvwxyz'.repeat(2)}abc`
    const lengths = [1, 2, 3, 4].map(() => {
      const { length } = lookup.guess(tokens(known), 100)
      lookup.checked(length, length)
      return length
    })
    expect(lengths).toEqual([3, 6, 12, 15])
  })

  it('rests longer and longer while guesses are wrong, and at once again after a right one', () => {
    const lookup = new PromptLookup(0)
    const stepsUntilGuess = () => {
      let steps = 0
      while (lookup.guess(tokens('abcd abc'), 100).length === 0) steps++
      return steps
    }
    const rests = Array.from({ length: 8 }, () => {
      const rest = stepsUntilGuess()
      lookup.checked(3, 0)
      return rest
    })
    expect(rests).toEqual([0, 2, 4, 8, 16, 32, 64, 64])
    stepsUntilGuess()
    lookup.checked(3, 1)
    expect(stepsUntilGuess()).toBe(0)
  })

  it('begins with a prediction, and finds its way back into it behind a change', () => {
    const lookup = new PromptLookup(6, tokens('the old house by the sea'))
    expect(guess(lookup, 'promptt')).toBe('he ')
    lookup.checked(3, 3)
    expect(guess(lookup, 'prompta')).toBe('')
    expect(guess(lookup, 'promptthe new')).toBe('')
    expect(guess(lookup, 'promptthe new hou')).toBe('se by ')
  })
})
