import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Corpus, makeCorpus, SEED, writeCorpus } from './generate.ts'
import { MAX_POSITIONS, writeUntrainedModel } from './model.ts'
import { writeTokenizer } from './tokenizer.ts'

/** Documents of pretraining text and conversations: about 1.3 and 1.4 million tokens. */
const TEXT_COUNT = 30_000
const CHAT_COUNT = 15_000

/** Demo datasets whose words the tokenizer should keep whole. */
const DEMO_FILES = [
  'anneal_identity.json',
  'greetings_sharegpt.json',
  'lighthouse_qa.json',
  'small_world.jsonl',
]
const dataFolder = join(dirname(fileURLToPath(import.meta.url)), '..')

/** Writes `folder`/data (the corpus as an Anneal dataset folder) and `folder`/untrained (the model before training). */
export function prepare(folder: string): Corpus {
  const corpus = makeCorpus(SEED, TEXT_COUNT, CHAT_COUNT)
  writeCorpus(corpus, join(folder, 'data'))
  const untrained = join(folder, 'untrained')
  writeTokenizer(tokenizerTexts(corpus), untrained, MAX_POSITIONS)
  writeUntrainedModel(untrained, SEED)
  return corpus
}

/** What the tokenizer learns its merges from: the corpus and the demo datasets. */
function* tokenizerTexts(corpus: Corpus): Generator<string> {
  yield* corpus.texts
  for (const { conversations } of corpus.chats) for (const { value } of conversations) yield value
  for (const name of DEMO_FILES) {
    const content = readFileSync(join(dataFolder, name), 'utf8')
    const rows: unknown[] = name.endsWith('l')
      ? content
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line))
      : JSON.parse(content)
    for (const row of rows) yield* strings(row)
  }
}

function* strings(value: unknown): Generator<string> {
  if (typeof value === 'string') yield value
  else if (typeof value === 'object' && value !== null)
    for (const item of Object.values(value)) yield* strings(item)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) prepare(process.argv[2] ?? 'saves/anneal-tiny')
