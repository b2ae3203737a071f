import { placeDescription, profile } from './facts.ts'
import type { Random } from './random.ts'
import { story } from './stories.ts'
import {
  ANIMAL_FACTS,
  COLOURS,
  capital,
  DAYS,
  JOBS,
  KINDS,
  list,
  MONTHS,
  numberWord,
  OBJECTS,
  OPPOSITES,
  plural,
  SEASONS,
  STRANGER_NAMES,
  THING_COLOURS,
  USES,
  withArticle,
} from './words.ts'
import type { World } from './world.ts'

/** One document of the pretraining text. */
export function pretrainingText(random: Random, world: World): string {
  const kind = random.weighted([
    [26, 'profile'],
    [8, 'place'],
    [20, 'story'],
    [16, 'numbers'],
    [20, 'things'],
    [10, 'echo'],
  ] as const)
  switch (kind) {
    case 'profile':
      return profile(random, random.pick(world.people))
    case 'place':
      return placeDescription(random, random.pick(world.places), world.people)
    case 'story':
      return story(random, world)
    case 'numbers':
      return numbers(random)
    case 'things':
      return Array.from({ length: random.int(3, 6) }, () => thing(random)).join(' ')
    case 'echo':
      return echo(random)
  }
}

/** Largest number of a calculation: small, so that every sum is seen often. */
const LARGEST = 12

/** A sum or difference within LARGEST. */
export function calculation(random: Random): {
  left: number
  sign: '+' | '-'
  right: number
  result: number
} {
  const result = random.int(0, LARGEST)
  const part = random.int(0, result)
  return random.chance(0.65)
    ? { left: part, sign: '+', right: result - part, result }
    : { left: result, sign: '-', right: part, result: result - part }
}

function numbers(random: Random): string {
  if (random.chance(0.25)) {
    const start = random.int(0, 12)
    const words = Array.from({ length: random.int(4, 8) }, (_, i) => numberWord(start + i))
    return `${random.pick(['Let us count:', 'We count:', 'The children count:'])} ${words.join(', ')}.`
  }
  const lines = Array.from({ length: random.int(3, 6) }, () => {
    const { left, sign, right, result } = calculation(random)
    const word = sign === '+' ? 'plus' : 'minus'
    return random.weighted([
      [5, () => `${capital(numberWord(left))} ${word} ${numberWord(right)} is ${numberWord(result)}.`],
      [3, () => `${left} ${sign} ${right} = ${result}.`],
      [1, () => `${capital(numberWord(left))} comes before ${numberWord(left + 1)}.`],
      [
        2,
        () =>
          left === right
            ? `${capital(numberWord(left))} is the same as ${numberWord(right)}.`
            : `${capital(numberWord(left))} is ${left > right ? 'more' : 'less'} than ${numberWord(right)}.`,
      ],
    ] as const)()
  })
  return lines.join(' ')
}

/** Somebody repeats what another one said, or has what was said before: the model learns to look back. */
function echo(random: Random): string {
  const [first, second, third] = random.sample(STRANGER_NAMES, 3) as [string, string, string]
  const [a, b, c] = random.sample(OBJECTS, 3) as [string, string, string]
  const [red, blue] = random.sample(COLOURS, 2) as [string, string]
  const words = random
    .sample([...OBJECTS, ...COLOURS, ...STRANGER_NAMES, ...JOBS], random.int(3, 7))
    .join(', ')
  return random.pick([
    `${first} said: ${words}. ${second} said: ${words}. ${third} said: ${words}.`,
    `${first} has ${withArticle(red)} ${a} and ${second} has ${withArticle(blue)} ${b}. The ${b} of ${second} is ${blue}. The ${a} of ${first} is ${red}.`,
    `${first} has a ${a}, ${second} has a ${b} and ${third} has a ${c}. Who has the ${b}? ${second} has the ${b}. Who has the ${a}? ${first} has the ${a}.`,
    `"My name is ${first}," said ${first}. "Hello, ${first}," said ${second}. "My name is ${second}." So ${second} met ${first}.`,
    `The ${a} is ${red} and the ${b} is ${blue}. What colour is the ${a}? The ${a} is ${red}. What colour is the ${b}? The ${b} is ${blue}.`,
  ])
}

function thing(random: Random): string {
  return random.pick(THINGS)(random)
}

const THINGS: readonly ((random: Random) => string)[] = [
  (random) => {
    const [name, colour] = random.pick(THING_COLOURS)
    return random.pick([
      `${capital(name)} is ${colour}.`,
      `The colour of ${name} is ${colour}.`,
      `Everybody knows that ${name} is ${colour}.`,
    ])
  },
  (random) => {
    const pair = random.pick(OPPOSITES)
    const [a, b] = random.chance(0.5) ? pair : [pair[1], pair[0]]
    return random.pick([
      `The opposite of ${a} is ${b}.`,
      `${capital(a)} is the opposite of ${b}.`,
      `What is not ${a} can be ${b}.`,
    ])
  },
  (random) => {
    const i = random.int(0, 6)
    const next = DAYS[(i + 1) % 7]!
    return random.pick([
      `After ${DAYS[i]} comes ${next}.`,
      `${next} is the day after ${DAYS[i]}.`,
      `${DAYS[i]} is the day before ${next}.`,
      `A week has seven days: ${list(DAYS)}.`,
    ])
  },
  (random) => {
    const i = random.int(0, 11)
    const next = MONTHS[(i + 1) % 12]!
    return random.pick([
      `After ${MONTHS[i]} comes ${next}.`,
      `${next} is the month after ${MONTHS[i]}.`,
      'A year has twelve months and four seasons.',
    ])
  },
  (random) => {
    const [season, event] = random.pick(SEASONS)
    return `In ${season} ${event}.`
  },
  (random) => {
    const kind = random.pick(Object.keys(KINDS))
    const members = random.sample(KINDS[kind]!, 3)
    return kind === 'colour'
      ? `${capital(list(members))} are colours.`
      : random.pick([
          `${capital(withArticle(members[0]!))} is ${withArticle(kind)}.`,
          `${capital(list(members.map(plural)))} are ${plural(kind)}.`,
        ])
  },
  (random) => {
    const [animal, sound, home] = random.pick(ANIMAL_FACTS)
    return random.pick([
      `${capital(withArticle(animal))} ${sound}.`,
      `${capital(withArticle(animal))} lives ${home}.`,
      `${capital(withArticle(animal))} is an animal that ${sound}.`,
    ])
  },
  (random) => {
    const [tool, use] = random.pick(USES)
    return random.pick([`You need ${tool} to ${use}.`, `${capital(tool)} helps you to ${use}.`])
  },
]
