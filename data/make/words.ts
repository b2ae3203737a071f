/** The word lists of the small world. */

export const FEMALE_NAMES =
  'Mia Anna Clara Ella Grace Iris Kate Lucy Nora Paula Ruth Tess Wendy Bella Dora Flora Helen Jane Lena Nina'.split(
    ' ',
  )
export const MALE_NAMES =
  'Tom Ben David Finn Hugo Jack Leo Max Oscar Sam Victor Adam Carl Emil George Ivan Karl Martin Otto Paul'.split(
    ' ',
  )
/** Names of people that nobody in the world knows: visitors, and questions that have no answer. */
export const STRANGER_NAMES =
  'Zara Noah Alice Omar Yuki Peter Maria Chen Sofia Liam Amir Julia Ravi Emma Lars Rosa Simon Tina Felix Olga Hana Marco Vera Juno'.split(
    ' ',
  )
export const PLACE_NAMES =
  'Redhill Greenford Stonebridge Millbrook Fairview Oakdale Northport Southbay Westfield Riverton Lakeside Hilltop Seaview Ashwood Maplewood Brightwater Coldspring Sandhaven Foxglen Elmstead'.split(
    ' ',
  )
export const PLACE_KINDS = ['village', 'town', 'city']
export const REGIONS = ['north', 'south', 'east', 'west']
export const FEATURES = ['a river', 'a lake', 'the sea', 'a hill', 'a forest', 'a mountain']
export const LANDMARKS =
  'an old bridge,a tall tower,a big market,a stone church,a small school,a windmill,a garden,a library,a museum,a lighthouse,a castle,a train station'.split(
    ',',
  )
export const GOODS = 'bread cheese apples boats honey wool fish pottery carpets flowers paper clocks'.split(
  ' ',
)
export const JOBS =
  'baker teacher doctor farmer painter sailor gardener carpenter cook tailor singer writer nurse driver fisher miller librarian smith pilot shepherd'.split(
    ' ',
  )
/** What each job does, in the third person. */
export const DUTIES: Readonly<Record<string, string>> = {
  baker: 'bakes bread',
  teacher: 'teaches children',
  doctor: 'helps sick people',
  farmer: 'grows food',
  painter: 'paints pictures',
  sailor: 'sails ships',
  gardener: 'grows flowers',
  carpenter: 'makes tables and chairs',
  cook: 'cooks meals',
  tailor: 'makes clothes',
  singer: 'sings songs',
  writer: 'writes books',
  nurse: 'cares for sick people',
  driver: 'drives a bus',
  fisher: 'catches fish',
  miller: 'makes flour',
  librarian: 'looks after books',
  smith: 'works with iron',
  pilot: 'flies planes',
  shepherd: 'looks after sheep',
}
export const COLOURS = 'red blue green yellow white black brown orange pink purple'.split(' ')
export const PETS = 'dog cat rabbit bird horse goat duck fish turtle hamster'.split(' ')
export const PET_NAMES =
  'Rex Luna Coco Bruno Daisy Pip Milo Ruby Shadow Pepper Biscuit Star Snow Ginger Bobo Kiwi Lucky Misty Nutmeg Olive'.split(
    ' ',
  )
export const FOODS =
  'soup,rice,pancakes,apples,cheese,noodles,fish,salad,chocolate,strawberries,potatoes,honey cake,pizza,eggs'.split(
    ',',
  )
export const HOBBIES =
  'reading,swimming,singing,dancing,painting,fishing,running,cooking,playing chess,playing the piano,climbing,gardening'.split(
    ',',
  )

/** Things and the colour that they always have. */
export const THING_COLOURS: readonly (readonly [string, string])[] = [
  ['the sky', 'blue'],
  ['the grass', 'green'],
  ['snow', 'white'],
  ['the sun', 'yellow'],
  ['a tomato', 'red'],
  ['a banana', 'yellow'],
  ['a carrot', 'orange'],
  ['coal', 'black'],
  ['milk', 'white'],
  ['a strawberry', 'red'],
  ['a leaf', 'green'],
  ['the sea', 'blue'],
  ['chocolate', 'brown'],
  ['a lemon', 'yellow'],
  ['a pumpkin', 'orange'],
  ['the night', 'black'],
  ['a frog', 'green'],
  ['a cherry', 'red'],
  ['a cloud', 'white'],
  ['wood', 'brown'],
  ['a pig', 'pink'],
  ['a plum', 'purple'],
]
export const OPPOSITES: readonly (readonly [string, string])[] = (
  'hot cold,big small,tall short,old young,fast slow,happy sad,day night,up down,left right,open closed,full empty,' +
  'light dark,hard soft,wet dry,loud quiet,strong weak,rich poor,early late,near far,high low,good bad,clean dirty'
)
  .split(',')
  .map((pair) => pair.split(' ') as [string, string])
export const DAYS = 'Monday Tuesday Wednesday Thursday Friday Saturday Sunday'.split(' ')
export const MONTHS =
  'January February March April May June July August September October November December'.split(' ')
export const SEASONS: readonly (readonly [string, string])[] = [
  ['spring', 'the flowers grow'],
  ['summer', 'the sun is hot'],
  ['autumn', 'the leaves fall'],
  ['winter', 'the snow falls'],
]
/** Kinds of things with members, for "Is a dog an animal?" and "Name three colours." */
export const KINDS: Readonly<Record<string, readonly string[]>> = {
  animal: 'dog cat cow horse sheep bird frog lion bear rabbit duck goat'.split(' '),
  fruit: 'apple banana cherry lemon plum strawberry pear grape'.split(' '),
  vegetable: 'carrot tomato potato onion pumpkin cabbage'.split(' '),
  tool: 'hammer knife saw spoon brush key'.split(' '),
  colour: COLOURS,
  flower: 'rose tulip daisy lily'.split(' '),
}
export const ANIMAL_FACTS: readonly (readonly [animal: string, sound: string, home: string])[] = [
  ['dog', 'barks', 'in a house'],
  ['cat', 'meows', 'in a house'],
  ['cow', 'moos', 'on a farm'],
  ['duck', 'quacks', 'near a lake'],
  ['lion', 'roars', 'in a hot land'],
  ['bird', 'sings', 'in a nest'],
  ['sheep', 'bleats', 'on a farm'],
  ['frog', 'croaks', 'near a lake'],
  ['bear', 'growls', 'in a forest'],
  ['bee', 'buzzes', 'in a hive'],
]
/** What a thing is for. */
export const USES: readonly (readonly [string, string])[] = [
  ['a knife', 'cut bread'],
  ['a key', 'open a door'],
  ['a pen', 'write a letter'],
  ['a lamp', 'make light'],
  ['a bed', 'sleep'],
  ['a cup', 'drink tea'],
  ['a boat', 'cross the water'],
  ['a clock', 'tell the time'],
  ['a brush', 'paint a picture'],
  ['a hammer', 'build a house'],
  ['a book', 'read a story'],
  ['an umbrella', 'stay dry in the rain'],
  ['a spoon', 'eat soup'],
  ['a bike', 'ride to school'],
]
export const OBJECTS = 'ball hat bag box coat cup kite lamp boat chair book bike scarf door key'.split(' ')
const ONES =
  'zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty'.split(
    ' ',
  )

/** The English word for 0 to 20. */
export function numberWord(value: number): string {
  const word = ONES[value]
  if (word === undefined) throw new RangeError(`numberWord: ${value} is outside 0 to 20`)
  return word
}

/** "a baker", "an apple". */
export function withArticle(noun: string): string {
  return `${/^[aeiou]/.test(noun) ? 'an' : 'a'} ${noun}`
}

/** "apples", "cherries", "tomatoes", "fish". */
export function plural(noun: string): string {
  if (noun === 'fish' || noun === 'sheep') return noun
  if (/[^aeiou]y$/.test(noun)) return `${noun.slice(0, -1)}ies`
  if (/(s|x|sh|ch|to)$/.test(noun)) return `${noun}es`
  return noun === 'knife' ? 'knives' : `${noun}s`
}

/** First letter upper case. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

/** "a", "a and b", "a, b and c". */
export function list(items: readonly string[]): string {
  return items.length < 2 ? items.join('') : `${items.slice(0, -1).join(', ')} and ${items.at(-1)}`
}
