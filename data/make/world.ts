import type { Random } from './random.ts'
import {
  COLOURS,
  FEATURES,
  FEMALE_NAMES,
  FOODS,
  GOODS,
  HOBBIES,
  JOBS,
  LANDMARKS,
  MALE_NAMES,
  PET_NAMES,
  PETS,
  PLACE_KINDS,
  PLACE_NAMES,
  REGIONS,
} from './words.ts'

export interface Place {
  name: string
  kind: string
  region: string
  /** With its article: "a river". */
  near: string
  /** With its article: "an old bridge". */
  landmark: string
  goods: string
}

export interface Person {
  name: string
  she: 'she' | 'he'
  her: 'her' | 'his'
  job: string
  home: string
  age: number
  colour: string
  pet: string
  petName: string
  friend: string
  food: string
  hobby: string
}

/** Everything that is true: the generated texts and chats never disagree with it. */
export interface World {
  people: Person[]
  places: Place[]
}

/** Draws the facts of the world. Friends come in pairs. */
export function makeWorld(random: Random): World {
  const places = PLACE_NAMES.map(
    (name): Place => ({
      name,
      kind: random.pick(PLACE_KINDS),
      region: random.pick(REGIONS),
      near: random.pick(FEATURES),
      landmark: random.pick(LANDMARKS),
      goods: random.pick(GOODS),
    }),
  )
  const names = random.shuffle([...FEMALE_NAMES, ...MALE_NAMES])
  const people = names.map((name, index): Person => {
    const female = FEMALE_NAMES.includes(name)
    return {
      name,
      she: female ? 'she' : 'he',
      her: female ? 'her' : 'his',
      job: random.pick(JOBS),
      home: random.pick(PLACE_NAMES),
      age: random.int(19, 79),
      colour: random.pick(COLOURS),
      pet: random.pick(PETS),
      petName: random.pick(PET_NAMES),
      friend: names[index ^ 1]!,
      food: random.pick(FOODS),
      hobby: random.pick(HOBBIES),
    }
  })
  return { people, places }
}
