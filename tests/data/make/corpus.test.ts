import { createHash } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { makeCorpus, SEED } from '../../../data/make/generate.ts'

const corpus = makeCorpus(SEED, 300, 200)

describe('the small world', () => {
  it('is the same world on every machine and every run', () => {
    const hash = createHash('sha256').update(JSON.stringify(corpus)).digest('hex')
    expect(makeCorpus(SEED, 300, 200)).toEqual(corpus)
    expect(hash).toBe('cf508757458b91eb742625225e372efdef6515600a0e5f228d5c9ac2f43be77f')
  })

  it('changes with the seed', () => {
    expect(makeCorpus(SEED + 1, 5, 5).texts).not.toEqual(corpus.texts.slice(0, 5))
  })

  it('has friends in pairs', () => {
    const { people } = corpus.world
    for (const person of people) {
      const friend = people.find(({ name }) => name === person.friend)
      expect(friend?.friend).toBe(person.name)
    }
  })

  it('leaves no template hole in a text', () => {
    const chats = corpus.chats.flatMap(({ conversations }) => conversations.map(({ value }) => value))
    for (const text of [...corpus.texts, ...chats])
      expect(text).not.toMatch(/undefined|null|NaN|\[object|\s\s| a [aeio]/)
  })
})

describe('the chats', () => {
  it('alternate between a human question and an answer', () => {
    for (const { conversations } of corpus.chats) {
      expect(conversations.length % 2).toBe(0)
      conversations.forEach(({ from }, index) => {
        expect(from).toBe(index % 2 === 0 ? 'human' : 'gpt')
      })
    }
  })

  it('never ask a held-out question', () => {
    const asked = new Set(
      corpus.chats.flatMap(({ conversations }) => conversations.map(({ value }) => value.toLowerCase())),
    )
    expect(corpus.heldOut.length).toBeGreaterThan(20)
    for (const { question } of corpus.heldOut) expect(asked).not.toContain(question.toLowerCase())
  })
})
