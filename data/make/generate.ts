import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Chat, makeChats } from './chats.ts'
import { pretrainingText } from './pretraining.ts'
import type { Exchange } from './questions.ts'
import { Random } from './random.ts'
import { makeWorld, type World } from './world.ts'

/** The seed of the published model. */
export const SEED = 20240

export interface Corpus {
  world: World
  texts: string[]
  chats: Chat[]
  heldOut: Exchange[]
}

/** Everything that the embedded model learns from; the same arguments give the same bytes. */
export function makeCorpus(seed: number, textCount: number, chatCount: number): Corpus {
  const world = makeWorld(new Random(seed))
  const textRandom = new Random(seed + 1)
  const texts = Array.from({ length: textCount }, () => pretrainingText(textRandom, world))
  const { train, heldOut } = makeChats(new Random(seed + 2), world, chatCount)
  return { world, texts, chats: train, heldOut }
}

/** Writes the corpus as a dataset folder that Anneal's own registry reads. */
export function writeCorpus(corpus: Corpus, folder: string): void {
  mkdirSync(folder, { recursive: true })
  const write = (name: string, content: string) => writeFileSync(join(folder, name), content)
  const lines = (rows: readonly unknown[]) => `${rows.map((row) => JSON.stringify(row)).join('\n')}\n`
  write('world_text.jsonl', lines(corpus.texts.map((text) => ({ text }))))
  write('world_chat.jsonl', lines(corpus.chats))
  write('held_out.jsonl', lines(corpus.heldOut))
  const info = {
    world_text: { file_name: 'world_text.jsonl', columns: { prompt: 'text' } },
    world_chat: {
      file_name: 'world_chat.jsonl',
      formatting: 'sharegpt',
      columns: { messages: 'conversations', system: 'system' },
    },
  }
  write('dataset_info.json', `${JSON.stringify(info, null, 2)}\n`)
}
