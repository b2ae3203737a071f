import { plainSentence, pronoun, TOPICS, type Topic, value } from './facts.ts'
import { calculation } from './pretraining.ts'
import type { Random } from './random.ts'
import {
  ANIMAL_FACTS,
  capital,
  DAYS,
  DUTIES,
  KINDS,
  list,
  MONTHS,
  numberWord,
  OPPOSITES,
  plural,
  STRANGER_NAMES,
  THING_COLOURS,
  USES,
  withArticle,
} from './words.ts'
import type { Person, Place, World } from './world.ts'

/** A question with its sentence and, where there is one, the single word or phrase that answers it. */
export interface Exchange {
  question: string
  answer: string
  short?: string
}

/** Wordings per topic; `s` is "Mia" or "she", `of` is "Mia's" or "her", `do` a name or pronoun after a verb form. */
const ASK: Readonly<Record<Topic, readonly ((s: string, of: string) => string)[]>> = {
  job: [
    (s) => `What does ${s} do?`,
    (_, of) => `What is ${of} job?`,
    (s) => `What does ${s} do for work?`,
    (s) => `What work does ${s} do?`,
  ],
  home: [
    (s) => `Where does ${s} live?`,
    (_, of) => `Where is ${of} house?`,
    (s) => `In which place does ${s} live?`,
    (_, of) => `Where is ${of} home?`,
  ],
  age: [
    (s) => `How old is ${s}?`,
    (_, of) => `What is ${of} age?`,
    (s) => `Can you tell me how old ${s} is?`,
  ],
  colour: [
    (_, of) => `What is ${of} favourite colour?`,
    (s) => `Which colour does ${s} like best?`,
    (s) => `What colour does ${s} like?`,
  ],
  pet: [
    (s) => `Does ${s} have a pet?`,
    (s) => `What pet does ${s} have?`,
    (s) => `Which animal does ${s} have?`,
    (_, of) => `What is ${of} pet?`,
  ],
  friend: [
    (_, of) => `Who is ${of} best friend?`,
    (_, of) => `Who is ${of} friend?`,
    (s) => `Does ${s} have a friend?`,
  ],
  food: [
    (s) => `What does ${s} like to eat?`,
    (_, of) => `What is ${of} favourite food?`,
    (s) => `Which food does ${s} like best?`,
  ],
  hobby: [
    (_, of) => `What is ${of} hobby?`,
    (s) => `What does ${s} like to do?`,
    (s) => `What does ${s} do in the evening?`,
  ],
}

/** Every wording of a question about a person by name: what training draws from and evaluation holds back. */
export function namedQuestions(p: Person): { topic: Topic; exchange: Exchange }[] {
  return TOPICS.flatMap((topic) =>
    ASK[topic].map((ask) => ({ topic, exchange: answerAbout(p, topic, ask(p.name, `${p.name}'s`)) })),
  )
}

function answerAbout(p: Person, topic: Topic, question: string): Exchange {
  const yes = /^Does /.test(question) ? 'Yes. ' : ''
  return { question, answer: yes + plainSentence(p, topic, pronoun(p)), short: capital(value(p, topic)) }
}

/** A question about a person whom the turn before has named: "Where does she live?" */
export function followUp(random: Random, p: Person): Exchange {
  const topic = random.pick(TOPICS)
  const question = random.pick(ASK[topic])(p.she, p.her)
  return answerAbout(p, topic, random.chance(0.15) ? `And ${lower(question)}` : question)
}

/** "Who is Mia?" */
export function whoIs(random: Random, p: Person): Exchange {
  const question = random.pick([
    `Who is ${p.name}?`,
    `Do you know ${p.name}?`,
    `Tell me about ${p.name}.`,
    `What do you know about ${p.name}?`,
  ])
  const long = /^(Tell|What)/.test(question)
  const more = long ? ` ${plainSentence(p, 'pet', pronoun(p))} ${plainSentence(p, 'colour', pronoun(p))}` : ''
  const yes = question.startsWith('Do ') ? 'Yes. ' : ''
  return {
    question,
    answer: `${yes}${p.name} is ${withArticle(p.job)} from ${p.home}. ${pronoun(p)} ${DUTIES[p.job]}.${more}`,
    short: capital(withArticle(p.job)),
  }
}

/** Questions that look the other way: from the fact to the person, or yes/no. */
export function reverse(random: Random, world: World): Exchange {
  const p = random.pick(world.people)
  if (random.chance(0.5)) {
    const guess = random.chance(0.5) ? p.home : random.pick(world.places).name
    return guess === p.home
      ? {
          question: `Does ${p.name} live in ${guess}?`,
          answer: `Yes, ${p.she} lives in ${p.home}.`,
          short: 'Yes',
        }
      : {
          question: `Does ${p.name} live in ${guess}?`,
          answer: `No, ${p.she} lives in ${p.home}.`,
          short: 'No',
        }
  }
  const guess = random.chance(0.5) ? p.job : random.pick(world.people).job
  const question = `Is ${p.name} ${withArticle(guess)}?`
  return guess === p.job
    ? { question, answer: `Yes, ${p.she} is ${withArticle(p.job)}.`, short: 'Yes' }
    : { question, answer: `No, ${p.she} is ${withArticle(p.job)}.`, short: 'No' }
}

export function aboutPlace(random: Random, place: Place): Exchange {
  return random.pick([
    {
      question: random.pick([`Where is ${place.name}?`, `Do you know where ${place.name} is?`]),
      answer: `${place.name} is in the ${place.region}, near ${place.near}.`,
      short: `In the ${place.region}`,
    },
    {
      question: random.pick([`What is ${place.name}?`, `Tell me about ${place.name}.`]),
      answer: `${place.name} is a ${place.kind} in the ${place.region}. It is known for its ${place.goods}.`,
      short: `A ${place.kind}`,
    },
    {
      question: random.pick([
        `What is ${place.name} known for?`,
        `What can I buy in ${place.name}?`,
        `Why do people go to ${place.name}?`,
      ]),
      answer: `${place.name} is known for its ${place.goods}.`,
      short: capital(place.goods),
    },
    {
      question: random.pick([
        `What can I see in ${place.name}?`,
        `What is there to see in ${place.name}?`,
        `What should I look at in ${place.name}?`,
      ]),
      answer: `In ${place.name} you can see ${place.landmark}.`,
      short: capital(place.landmark),
    },
  ])
}

/** A question whose answer nobody in the world knows. */
export function unknown(random: Random): Exchange {
  const stranger = random.pick(STRANGER_NAMES)
  const topic = random.pick(TOPICS)
  const question = random.pick([
    `Who is ${stranger}?`,
    `Do you know ${stranger}?`,
    random.pick(ASK[topic])(stranger, `${stranger}'s`),
    'What will the weather be tomorrow?',
    'What is the news today?',
    'How many stars are there?',
    'What am I thinking about?',
    'Who will win the game?',
    'How tall is the moon?',
    'What did I eat yesterday?',
  ])
  const about = question.includes(stranger) && /^(Who|Do you)/.test(question)
  return {
    question,
    answer: about ? `I do not know ${stranger}.` : 'I am sorry, I do not know that.',
    short: 'Unknown',
  }
}

/** Sums in words and digits, counting, and what comes next. */
export function aboutNumbers(random: Random): Exchange {
  const { left, sign, right, result } = calculation(random)
  const word = sign === '+' ? 'plus' : 'minus'
  if (random.chance(0.5)) {
    const sum = `${numberWord(left)} ${word} ${numberWord(right)}`
    return {
      question: random.pick([`What is ${sum}?`, `How much is ${sum}?`, `Can you tell me what ${sum} is?`]),
      answer: `${capital(sum)} is ${numberWord(result)}.`,
      short: capital(numberWord(result)),
    }
  }
  if (random.chance(0.6)) {
    const sum = `${left} ${sign} ${right}`
    return {
      question: random.pick([`What is ${sum}?`, `${sum} = ?`, `How much is ${sum}?`]),
      answer: `${sum} is ${result}.`,
      short: String(result),
    }
  }
  if (random.chance(0.5)) {
    const end = random.int(3, 12)
    const words = Array.from({ length: end }, (_, i) => numberWord(i + 1))
    return {
      question: random.pick([`Count to ${numberWord(end)}.`, `Can you count to ${numberWord(end)}?`]),
      answer: `${capital(words.join(', '))}.`,
    }
  }
  const next = random.int(0, 15)
  return {
    question: random.pick([
      `Which number comes after ${numberWord(next)}?`,
      `What comes after ${numberWord(next)}?`,
    ]),
    answer: `After ${numberWord(next)} comes ${numberWord(next + 1)}.`,
    short: capital(numberWord(next + 1)),
  }
}

/** Colours, opposites, days, months, kinds, animals and uses. */
export function aboutThings(random: Random): Exchange {
  return random.pick(THINGS)(random)
}

const THINGS: readonly ((random: Random) => Exchange)[] = [
  (random) => {
    const [name, colour] = random.pick(THING_COLOURS)
    const question = random.pick([
      `What colour is ${name}?`,
      `What is the colour of ${name}?`,
      `Which colour does ${name} have?`,
    ])
    return { question, answer: `${capital(name)} is ${colour}.`, short: capital(colour) }
  },
  (random) => {
    const pair = random.pick(OPPOSITES)
    const [a, b] = random.chance(0.5) ? pair : [pair[1], pair[0]]
    const question = random.pick([
      `What is the opposite of ${a}?`,
      `Tell me the opposite of ${a}.`,
      `Which word is the opposite of ${a}?`,
    ])
    return { question, answer: `The opposite of ${a} is ${b}.`, short: capital(b) }
  },
  (random) => {
    const names = random.chance(0.5) ? DAYS : MONTHS
    const i = random.int(0, names.length - 1)
    const after = names[(i + 1) % names.length]!
    const unit = names === DAYS ? 'day' : 'month'
    return random.pick([
      {
        question: random.pick([`Which ${unit} comes after ${names[i]}?`, `What comes after ${names[i]}?`]),
        answer: `After ${names[i]} comes ${after}.`,
        short: after,
      },
      {
        question: random.pick([`Which ${unit} comes before ${after}?`, `What comes before ${after}?`]),
        answer: `Before ${after} comes ${names[i]}.`,
        short: names[i]!,
      },
    ])
  },
  (random) => {
    const kinds = Object.keys(KINDS)
    const kind = random.pick(kinds)
    const count = random.int(2, 4)
    return {
      question: random.pick([
        `Name ${numberWord(count)} ${plural(kind)}.`,
        `Can you name ${numberWord(count)} ${plural(kind)}?`,
        `Tell me ${numberWord(count)} ${plural(kind)}.`,
      ]),
      answer: `${capital(list(random.sample(KINDS[kind]!, count)))}.`,
    }
  },
  (random) => {
    const kinds = Object.keys(KINDS).filter((kind) => kind !== 'colour')
    const kind = random.pick(kinds)
    const member = withArticle(random.pick(KINDS[kind]!))
    const guess = random.chance(0.5) ? kind : random.pick(kinds)
    const answer =
      guess === kind ? `Yes, ${member} is ${withArticle(kind)}.` : `No, ${member} is ${withArticle(kind)}.`
    return { question: `Is ${member} ${withArticle(guess)}?`, answer, short: guess === kind ? 'Yes' : 'No' }
  },
  (random) => {
    const [animal, sound, home] = random.pick(ANIMAL_FACTS)
    const name = withArticle(animal)
    return random.pick([
      {
        question: `Where does ${name} live?`,
        answer: `${capital(name)} lives ${home}.`,
        short: capital(home),
      },
      {
        question: `What does ${name} do?`,
        answer: `${capital(name)} ${sound}.`,
        short: capital(sound),
      },
      { question: `Which animal ${sound}?`, answer: `${capital(name)} ${sound}.`, short: capital(name) },
    ])
  },
  (random) => {
    const [tool, use] = random.pick(USES)
    return {
      question: random.pick([
        `What is ${tool} for?`,
        `What can I do with ${tool}?`,
        `Why do I need ${tool}?`,
      ]),
      answer: `You need ${tool} to ${use}.`,
    }
  },
]

function lower(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1)
}
