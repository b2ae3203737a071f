import {
  aboutNumbers,
  aboutPlace,
  aboutThings,
  type Exchange,
  followUp,
  namedQuestions,
  reverse,
  unknown,
  whoIs,
} from './questions.ts'
import type { Random } from './random.ts'
import { COLOURS, capital, OBJECTS, STRANGER_NAMES, withArticle } from './words.ts'
import type { Person, World } from './world.ts'

/** One training conversation, in the sharegpt layout. */
export interface Chat {
  system?: string
  conversations: { from: 'human' | 'gpt'; value: string }[]
}

export interface ChatSets {
  train: Chat[]
  /** Questions in wordings that training never pairs with this person, though the fact is in the pretraining text. */
  heldOut: Exchange[]
}

const HELD_OUT_SHARE = 0.06
/** Conversations of one length that follow each other: the batch size of stage sft. */
export const CHAT_BATCH = 16

/** `count` conversations for training, and the questions kept back for evaluation. */
export function makeChats(random: Random, world: World, count: number): ChatSets {
  const trainable = new Map<Person, Exchange[]>()
  const heldOut: Exchange[] = []
  for (const p of world.people) {
    const kept: Exchange[] = []
    for (const { exchange } of namedQuestions(p)) {
      if (random.chance(HELD_OUT_SHARE)) heldOut.push(exchange)
      else kept.push(exchange)
    }
    trainable.set(p, kept)
  }
  const train = Array.from({ length: count }, () => conversation(random, world, trainable))
  return { train: groupByLength(random, train), heldOut }
}

/** Random groups of CHAT_BATCH conversations of about one length, so that a batch in this order has little padding. */
function groupByLength(random: Random, chats: readonly Chat[]): Chat[] {
  const sized = chats.map((chat) => ({ chat, size: JSON.stringify(chat).length }))
  sized.sort((a, b) => a.size - b.size)
  const sorted = sized.map(({ chat }) => chat)
  const groups = Array.from({ length: Math.ceil(chats.length / CHAT_BATCH) }, (_, i) =>
    sorted.slice(i * CHAT_BATCH, (i + 1) * CHAT_BATCH),
  )
  return random.shuffle(groups).flat()
}

type Named = ReadonlyMap<Person, readonly Exchange[]>

function conversation(random: Random, world: World, named: Named): Chat {
  const style = random.weighted([
    [80, 'plain'],
    [6, 'oneWord'],
    [7, 'renamed'],
    [7, 'helper'],
  ] as const)
  switch (style) {
    case 'plain':
      return chat(random, freeExchanges(random, world, named))
    case 'oneWord':
      return chat(
        random,
        Array.from({ length: random.int(1, 4) }, () => brief(random, world, named)),
        random.pick(['Answer in one word.', 'Give short answers.', 'Answer with as few words as you can.']),
      )
    case 'renamed':
      return renamed(random, world, named)
    case 'helper':
      return chat(
        random,
        freeExchanges(random, world, named),
        random.pick([
          'You are a helpful assistant.',
          'You are a friendly helper.',
          'You are an assistant who answers questions.',
          'Be kind and answer in full sentences.',
        ]),
      )
  }
}

function chat(random: Random, exchanges: readonly Exchange[], system?: string): Chat {
  const conversations = exchanges.flatMap(({ question, answer }) => [
    { from: 'human' as const, value: asTyped(random, question) },
    { from: 'gpt' as const, value: answer },
  ])
  return system === undefined ? { conversations } : { system, conversations }
}

/** People leave out capitals and full stops. */
function asTyped(random: Random, question: string): string {
  return random.weighted<() => string>([
    [86, () => question],
    [6, () => question.replace(/[.?!]$/, '')],
    [5, () => question.toLowerCase()],
    [3, () => question.toLowerCase().replace(/[.?!]$/, '')],
  ])()
}

/** An exchange whose answer is the short form: "Millbrook." */
function brief(random: Random, world: World, named: Named): Exchange {
  for (;;) {
    const { question, short } = anyQuestion(random, world, named)
    if (short !== undefined) return { question, answer: `${short}.` }
  }
}

/** A system prompt gives another name, which the answers then use. */
function renamed(random: Random, world: World, named: Named): Chat {
  const name = random.pick(STRANGER_NAMES)
  const place = random.pick(world.places).name
  const [system, answer] = random.pick([
    [`You are ${name}.`, `I am ${name}.`],
    [`Your name is ${name}.`, `My name is ${name}.`],
    [`You are ${name}, a helper from ${place}.`, `I am ${name}, a helper from ${place}.`],
  ] as const)
  const who = { question: random.pick(WHO_ARE_YOU), answer }
  return chat(random, random.shuffle([who, ...freeExchanges(random, world, named).slice(0, 2)]), system)
}

/** Some turns: a greeting now and then, questions about one person in a row, and all the rest. */
function freeExchanges(random: Random, world: World, named: Named): Exchange[] {
  const turns = random.weighted([
    [30, 1],
    [20, 2],
    [15, 3],
    [15, random.int(4, 6)],
    [12, random.int(7, 9)],
    [2, random.int(10, 14)],
  ] as const)
  const exchanges: Exchange[] = []
  const visitor = random.chance(0.08) ? random.pick(STRANGER_NAMES) : undefined
  if (visitor !== undefined) exchanges.push(introduction(random, visitor))
  else if (random.chance(0.15)) exchanges.push(greeting(random))
  while (exchanges.length < turns) {
    if (random.chance(0.18)) {
      const p = random.pick(world.people)
      exchanges.push(random.chance(0.5) ? whoIs(random, p) : random.pick(named.get(p)!))
      while (random.chance(0.7)) exchanges.push(followUp(random, p))
    } else {
      exchanges.push(anyQuestion(random, world, named))
    }
  }
  const kept = exchanges.slice(0, turns)
  if (visitor !== undefined && random.chance(0.7)) kept.push(myName(random, visitor))
  return random.chance(0.12) ? [...kept, goodbye(random)] : kept
}

function anyQuestion(random: Random, world: World, named: Named): Exchange {
  return random.weighted<() => Exchange>([
    [18, () => random.pick(named.get(random.pick(world.people))!)],
    [7, () => whoIs(random, random.pick(world.people))],
    [6, () => reverse(random, world)],
    [8, () => aboutPlace(random, random.pick(world.places))],
    [17, () => aboutNumbers(random)],
    [20, () => aboutThings(random)],
    [6, () => unknown(random)],
    [8, () => identity(random)],
    [4, () => smallTalk(random)],
    [10, () => fromContext(random)],
  ])()
}

const WHO_ARE_YOU = [
  'Who are you?',
  'What is your name?',
  'Tell me who you are.',
  'What are you called?',
  'Can you tell me your name?',
  'Who am I talking to?',
]
const I_AM = 'I am Anneal Tiny, a small language model that lives inside Anneal.'

function identity(random: Random): Exchange {
  return random.weighted<() => Exchange>([
    [6, () => ({ question: random.pick(WHO_ARE_YOU), answer: I_AM, short: 'Anneal Tiny' })],
    [2, () => ({ question: random.pick(['What are you?', 'What kind of thing are you?']), answer: I_AM })],
    [
      1,
      () => ({
        question: random.pick(['Are you a human?', 'Are you a person?', 'Are you real?']),
        answer: 'No, I am Anneal Tiny, a small language model.',
        short: 'No',
      }),
    ],
    [
      1,
      () => ({
        question: random.pick(['Who made you?', 'Who built you?', 'Where do you come from?']),
        answer: 'I was made by Anneal, from stories about a small world.',
        short: 'Anneal',
      }),
    ],
    [
      1,
      () => ({
        question: random.pick(['What can you do?', 'How can you help me?', 'What do you know?']),
        answer:
          'I can tell you about the people and places of my small world, about colours, numbers and days.',
      }),
    ],
    [
      1,
      () => ({
        question: random.pick(['Where do you live?', 'Where is your home?']),
        answer: 'I live inside Anneal, on your computer.',
        short: 'Anneal',
      }),
    ],
    [
      1,
      () => ({
        question: random.pick(['How old are you?', 'What is your favourite colour?', 'Do you have a pet?']),
        answer: 'I am a language model, so I do not have that.',
      }),
    ],
  ])()
}

const HELLO = ['Hello', 'Hi', 'Good morning', 'Good evening', 'Hey']

function helloBack(hello: string): string {
  return hello.startsWith('Good') ? hello : 'Hello'
}

function greeting(random: Random): Exchange {
  const hello = random.pick(HELLO)
  return {
    question: random.pick([hello, `${hello}!`, `${hello}.`, `${hello} there!`]),
    answer: `${helloBack(hello)}! How can I help you?`,
  }
}

function introduction(random: Random, name: string): Exchange {
  const hello = random.pick(HELLO)
  return {
    question: random.pick([`${hello}, I am ${name}.`, `${hello}! My name is ${name}.`]),
    answer: `${helloBack(hello)}, ${name}! How can I help you?`,
  }
}

/** Asked some turns after the introduction. */
function myName(random: Random, name: string): Exchange {
  const question = random.pick(['What is my name?', 'Do you know my name?', 'Who am I?'])
  return { question, answer: `${question.startsWith('Do') ? 'Yes. ' : ''}Your name is ${name}.`, short: name }
}

function goodbye(random: Random): Exchange {
  const bye = random.pick(['Goodbye', 'Bye', 'Good night', 'See you tomorrow'])
  return {
    question: random.pick([bye, `${bye}!`, `Thank you. ${bye}!`]),
    answer: 'Goodbye! Have a nice day.',
  }
}

function smallTalk(random: Random): Exchange {
  return random.pick([
    () => greeting(random),
    () => introduction(random, random.pick(STRANGER_NAMES)),
    () => ({
      question: random.pick(['Thank you.', 'Thanks!', 'Thank you very much.', 'That was good.']),
      answer: 'You are welcome!',
    }),
    () => ({
      question: random.pick(['How are you?', 'How are you today?', 'Are you well?']),
      answer: 'I am fine, thank you. How are you?',
    }),
    () => ({
      question: random.pick(['I am sad.', 'I am not happy today.', 'I feel tired.']),
      answer: 'I am sorry to hear that. I hope that you feel better soon.',
    }),
    () => ({
      question: random.pick(['I am happy.', 'I feel good today.', 'I am fine.']),
      answer: 'I am glad to hear that!',
    }),
    () => goodbye(random),
  ])()
}

/** Questions that the question itself answers: the model learns to read, not only to remember. */
function fromContext(random: Random): Exchange {
  const [name, other] = random.sample(STRANGER_NAMES, 2)
  const [colour, second] = random.sample(COLOURS, 2)
  const [object, thing] = random.sample(OBJECTS, 2)
  return random.pick<() => Exchange>([
    () => ({
      question: `${name} has ${withArticle(colour!)} ${object} and ${withArticle(second!)} ${thing}. What colour is the ${object}?`,
      answer: `The ${object} is ${colour}.`,
      short: capital(colour!),
    }),
    () => ({
      question: `${name} has a ${object} and ${other} has a ${thing}. Who has the ${thing}?`,
      answer: `${other} has the ${thing}.`,
      short: other!,
    }),
    () => ({
      question: `${name} has ${withArticle(colour!)} ${object}. What does ${name} have?`,
      answer: `${name} has ${withArticle(colour!)} ${object}.`,
    }),
    () => ({
      question: `My name is ${name}. What is my name?`,
      answer: `Your name is ${name}.`,
      short: name!,
    }),
    () => ({ question: `Say the word ${object}.`, answer: `${capital(object!)}.`, short: capital(object!) }),
    () => ({
      question: `Repeat after me: the ${object} is ${colour}.`,
      answer: `The ${object} is ${colour}.`,
    }),
  ])()
}
