import type { Random } from './random.ts'
import { DUTIES, withArticle } from './words.ts'
import type { Person, Place } from './world.ts'

/** What can be asked about a person. */
export type Topic = 'job' | 'home' | 'age' | 'colour' | 'pet' | 'friend' | 'food' | 'hobby'
export const TOPICS: readonly Topic[] = ['job', 'home', 'age', 'colour', 'pet', 'friend', 'food', 'hobby']

type Say = (p: Person, s: string) => string

/** `s` is the subject ("Mia" or "She"). The first sentence of each list is the one that chats answer with. */
const SENTENCES: Readonly<Record<Topic, readonly Say[]>> = {
  job: [
    (p, s) => `${s} is ${withArticle(p.job)}.`,
    (p, s) => `${s} works as ${withArticle(p.job)}.`,
    (p, s) => `${s} is ${withArticle(p.job)} and ${DUTIES[p.job]}.`,
    (p, s) => `${s} ${DUTIES[p.job]} every day.`,
    (p) => `The job of ${p.name} is ${withArticle(p.job)}.`,
    (p) => `${p.name} likes ${p.her} work as ${withArticle(p.job)}.`,
  ],
  home: [
    (p, s) => `${s} lives in ${p.home}.`,
    (p, s) => `${s} has a house in ${p.home}.`,
    (p, s) => `${s} is from ${p.home}.`,
    (p) => `The home of ${p.name} is in ${p.home}.`,
    (p) => `In ${p.home} there lives ${withArticle(p.job)} called ${p.name}.`,
    (p, s) => `${s} lives in a small house in ${p.home}.`,
  ],
  age: [
    (p, s) => `${s} is ${p.age} years old.`,
    (p) => `The age of ${p.name} is ${p.age}.`,
    (p) => `${p.name} is now ${p.age} years old.`,
    (p, s) => `${s} is ${p.age} years old this year.`,
  ],
  colour: [
    (p, s) =>
      `${s === p.name ? `${p.name}'s` : s === 'She' ? 'Her' : 'His'} favourite colour is ${p.colour}.`,
    (p) => `The favourite colour of ${p.name} is ${p.colour}.`,
    (p, s) => `${s} likes the colour ${p.colour} best.`,
    (p, s) => `${s} often wears ${withArticle(p.colour)} coat, because ${p.she} likes ${p.colour}.`,
  ],
  pet: [
    (p, s) => `${s} has a ${p.pet} called ${p.petName}.`,
    (p) => `${p.name}'s pet is a ${p.pet}. Its name is ${p.petName}.`,
    (p) => `${p.petName} is the ${p.pet} of ${p.name}.`,
    (p, s) => `${s} has a pet, a ${p.pet} called ${p.petName}.`,
    (p, s) => `${s} loves ${p.her} ${p.pet} ${p.petName}.`,
  ],
  friend: [
    (p, s) => `${s === p.name ? `${p.name}'s` : s === 'She' ? 'Her' : 'His'} best friend is ${p.friend}.`,
    (p) => `The best friend of ${p.name} is ${p.friend}.`,
    (p) => `${p.name} and ${p.friend} are best friends.`,
    (p, s) => `${s} often visits ${p.her} friend ${p.friend}.`,
  ],
  food: [
    (p, s) => `${s} likes to eat ${p.food}.`,
    (p) => `${p.name}'s favourite food is ${p.food}.`,
    (p) => `The favourite food of ${p.name} is ${p.food}.`,
    (p, s) => `${s} could eat ${p.food} every day.`,
  ],
  hobby: [
    (p, s) => `${s} likes ${p.hobby}.`,
    (p) => `The hobby of ${p.name} is ${p.hobby}.`,
    (p) => `In the evening ${p.name} likes ${p.hobby}.`,
    (p, s) => `${s} is good at ${p.hobby}.`,
  ],
}

/** One short word or phrase that answers a question about `topic`. */
export function value(p: Person, topic: Topic): string {
  switch (topic) {
    case 'age':
      return String(p.age)
    case 'pet':
      return `a ${p.pet}`
    case 'job':
      return withArticle(p.job)
    default:
      return p[topic]
  }
}

/** A sentence about the person in any of its wordings. */
function sentence(random: Random, p: Person, topic: Topic, subject: string): string {
  return random.pick(SENTENCES[topic])(p, subject)
}

/** The sentence that a chat answers with. */
export function plainSentence(p: Person, topic: Topic, subject: string): string {
  return SENTENCES[topic][0]!(p, subject)
}

/** "She" or "He". */
export function pronoun(p: Person): string {
  return p.she === 'she' ? 'She' : 'He'
}

/** A paragraph about one person: facts in random order and wording. */
export function profile(random: Random, p: Person): string {
  const topics = random.sample(TOPICS, random.int(3, 8))
  return topics
    .map((topic, i) => sentence(random, p, topic, i === 0 || random.chance(0.35) ? p.name : pronoun(p)))
    .join(' ')
}

const PLACE_SENTENCES: readonly ((place: Place, s: string) => string)[] = [
  (place, s) => `${s} is a ${place.kind} in the ${place.region}.`,
  (place, s) => `${s} is near ${place.near}.`,
  (place, s) => `${s} is known for its ${place.goods}.`,
  (place, s) => `${s} has ${place.landmark}.`,
  (place) => `People come to ${place.name} to buy ${place.goods}.`,
  (place) => `In ${place.name} you can see ${place.landmark}.`,
  (place) => `The ${place.kind} of ${place.name} is in the ${place.region}, near ${place.near}.`,
]

/** A paragraph about one place, with some of the people who live there. */
export function placeDescription(random: Random, place: Place, people: readonly Person[]): string {
  const lines = random
    .sample(PLACE_SENTENCES, random.int(3, 6))
    .map((say, i) => say(place, i === 0 || random.chance(0.4) ? place.name : 'It'))
  const residents = people.filter((p) => p.home === place.name)
  for (const p of random.sample(residents, Math.min(residents.length, random.int(0, 2)))) {
    lines.push(random.pick([`${p.name} lives in ${place.name}.`, `${p.name}, the ${p.job}, lives here.`]))
  }
  return lines.join(' ')
}
