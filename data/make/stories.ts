import type { Random } from './random.ts'
import { COLOURS, capital, DAYS, FOODS, list, numberWord, OBJECTS, plural, withArticle } from './words.ts'
import type { Person, World } from './world.ts'

const OPENINGS = [
  'One morning',
  'One day',
  'On a sunny day',
  'On a rainy day',
  'Early in the morning',
  'Late in the evening',
  'Last week',
  'One cold winter day',
]
const WEATHER = [
  'The sun was warm.',
  'It was raining.',
  'The wind was strong.',
  'The sky was blue.',
  'Snow fell on the houses.',
  'The air was cold and clear.',
]
const FEELINGS = ['happy', 'tired', 'glad', 'hungry', 'a little sad', 'very proud']
const ENDINGS: readonly ((p: Person) => string)[] = [
  (p) => `In the end, ${p.name} went home and slept well.`,
  (p) => `It was a good day for ${p.name}.`,
  (p) => `${p.name} will never forget that day.`,
  (p) => `Then ${p.name} walked back to ${p.home}.`,
  (p) => `That night ${p.name} told ${p.friend} the whole story.`,
  () => 'Everybody was happy again.',
]

/** A short story about one person of the world, in the past tense. */
export function story(random: Random, world: World): string {
  const hero = random.pick(world.people)
  const friend = world.people.find((p) => p.name === hero.friend)!
  const plot = random.pick(PLOTS)
  const lines = [...plot(random, hero, friend, world)]
  if (random.chance(0.4)) lines.splice(1, 0, random.pick(WEATHER))
  if (random.chance(0.7)) lines.push(random.pick(ENDINGS)(hero))
  return lines.join(' ')
}

type Plot = (random: Random, hero: Person, friend: Person, world: World) => string[]

const PLOTS: readonly Plot[] = [
  function market(random, hero, _friend, world) {
    const seller = random.pick(world.people.filter((p) => p !== hero))
    const count = random.int(2, 9)
    const fruit = random.pick(['apple', 'pear', 'lemon', 'carrot', 'egg', 'onion'])
    return [
      `${random.pick(OPENINGS)} ${hero.name} went to the market in ${random.pick(world.places).name}.`,
      `${capital(hero.she)} wanted to buy ${numberWord(count)} ${plural(fruit)} and some ${random.pick(['bread', 'cheese', 'honey', 'milk'])}.`,
      `"Good morning," said ${seller.name}. "How many ${plural(fruit)} do you want?"`,
      `"${capital(numberWord(count))}, please," said ${hero.name}.`,
      `${hero.name} paid, said thank you and put the ${plural(fruit)} in ${hero.her} bag.`,
    ]
  },
  function lostPet(random, hero, friend) {
    const where = random.pick([
      'under the bed',
      'behind the house',
      'in the garden',
      'on the roof',
      'near the river',
    ])
    return [
      `${random.pick(OPENINGS)} ${hero.name} could not find ${hero.her} ${hero.pet} ${hero.petName}.`,
      `${capital(hero.she)} looked in every room of the house and called "${hero.petName}! Where are you?"`,
      `Then ${friend.name} came to help.`,
      `Together they looked for a long time, and at last they found ${hero.petName} ${where}.`,
      `${hero.name} was very ${random.pick(['happy', 'glad'])} and said, "Thank you, ${friend.name}!"`,
    ]
  },
  function visit(random, hero, friend) {
    const food = random.pick(FOODS)
    return [
      `${random.pick(OPENINGS)} ${hero.name} visited ${hero.her} friend ${friend.name} in ${friend.home}.`,
      `"Hello, ${hero.name}! How are you?" asked ${friend.name}.`,
      `"I am fine, thank you," said ${hero.name}.`,
      `They sat in the garden, ate ${food} and talked about ${random.pick([friend.hobby, hero.hobby])}.`,
      `${friend.name} was ${random.pick(FEELINGS)}, because ${friend.she} likes it when friends come to see ${friend.her} house.`,
    ]
  },
  function gift(random, hero, friend) {
    const object = random.pick(OBJECTS)
    const colour = random.chance(0.6) ? friend.colour : random.pick(COLOURS)
    return [
      `It was ${random.pick(DAYS)}, and it was the birthday of ${friend.name}.`,
      `${hero.name} made ${withArticle(colour)} ${object} for ${friend.name}.`,
      `"This is for you," said ${hero.name}. "It is ${withArticle(colour)} ${object}."`,
      `"Thank you! I like it very much," said ${friend.name}.`,
      `${friend.name} put the ${colour} ${object} ${random.pick(['on the table', 'near the window', 'beside the door'])}.`,
    ]
  },
  function work(random, hero, _friend, world) {
    const other = random.pick(world.people.filter((p) => p !== hero))
    return [
      `${random.pick(OPENINGS)} ${hero.name} the ${hero.job} had a lot of work to do in ${hero.home}.`,
      `${other.name} the ${other.job} came by and asked, "Can I help you?"`,
      `"Yes, please," said ${hero.name}. "We can do it together."`,
      `They worked from the morning to the evening, and then they ate ${random.pick(FOODS)}.`,
      `${hero.name} was ${random.pick(FEELINGS)} after the long day.`,
    ]
  },
  function journey(random, hero, _friend, world) {
    const [a, b] = random.sample(world.places, 2)
    const way = random.pick(['by boat', 'by train', 'by bus', 'on foot', 'by bike'])
    return [
      `${random.pick(OPENINGS)} ${hero.name} travelled from ${a!.name} to ${b!.name} ${way}.`,
      `The way was long, but ${hero.she} was not tired.`,
      `In ${b!.name} ${hero.she} saw ${b!.landmark} near ${b!.near}.`,
      `${capital(hero.she)} bought some ${b!.goods} there and stayed for ${numberWord(random.int(2, 9))} days.`,
    ]
  },
  function lostThing(random, hero, friend) {
    const [first, second] = random.sample(OBJECTS, 2)
    const colour = random.pick(COLOURS)
    return [
      `${hero.name} had ${withArticle(colour)} ${first} and a ${second}.`,
      `${random.pick(OPENINGS)} the ${first} was gone.`,
      `"Who has seen my ${colour} ${first}?" asked ${hero.name}.`,
      `"I have seen it," said ${friend.name}. "It is ${random.pick(['under the table', 'in the kitchen', 'behind the door', 'in your bag'])}."`,
      `So ${hero.name} found the ${colour} ${first} again.`,
    ]
  },
  function feast(random, hero, _friend, world) {
    const guests = random.sample(
      world.people.filter((p) => p !== hero),
      random.int(2, 4),
    )
    return [
      `On ${random.pick(DAYS)} ${hero.name} cooked ${hero.food} for ${list(guests.map((p) => p.name))}.`,
      `${guests[0]!.name} brought ${guests[0]!.her} ${guests[0]!.pet} ${guests[0]!.petName}.`,
      `${guests[1]!.name} said, "I do not eat this every day. I like ${guests[1]!.food} best."`,
      `They ate, laughed and sang until the night came.`,
    ]
  },
]
