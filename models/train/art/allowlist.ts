// Which vector sets may be read, and which of their pictures. Everything the composer draws comes from here or is our own.

export type Style = 'flat' | 'storybook' | 'sticker' | 'soft'

export interface ArtSet {
  package: string
  version: string
  title: string
  author: string
  licence: 'MIT' | 'Apache-2.0' | 'CC-BY-4.0'
  link: string
}

export const ART: Record<Style, ArtSet> = {
  flat: {
    package: '@iconify-json/fluent-emoji-flat',
    version: '1.2.6',
    title: 'Fluent Emoji Flat',
    author: 'Microsoft Corporation',
    licence: 'MIT',
    link: 'https://github.com/microsoft/fluentui-emoji'
  },
  storybook: {
    package: '@iconify-json/noto',
    version: '1.2.9',
    title: 'Noto Emoji',
    author: 'Google Inc',
    licence: 'Apache-2.0',
    link: 'https://github.com/googlefonts/noto-emoji'
  },
  sticker: {
    package: '@iconify-json/twemoji',
    version: '1.2.5',
    title: 'Twemoji',
    author: 'Twitter and contributors',
    licence: 'CC-BY-4.0',
    link: 'https://github.com/jdecked/twemoji'
  },
  soft: {
    package: '@iconify-json/fluent-emoji',
    version: '1.2.7',
    title: 'Fluent Emoji',
    author: 'Microsoft Corporation',
    licence: 'MIT',
    link: 'https://github.com/microsoft/fluentui-emoji'
  }
}

// Stated by some sets as "CC BY-SA 4.0", by others as an SPDX identifier.
const SHARE_ALIKE = /\bSA\b|GPL|share.?alike/i
const OPEN = /^(MIT|Apache-2\.0|CC-BY-4\.0)$/

/** Refuses every package outside the list above, and a listed one whose stated licence has changed to share-alike. */
export function checkArt(name: string, version: string, spdx: string): ArtSet {
  const set = Object.values(ART).find((s) => s.package === name)
  if (SHARE_ALIKE.test(spdx)) throw new Error(`${name}: share-alike art (${spdx}) must not enter a training picture`)
  if (!set) throw new Error(`${name}: not on the list of allowed art`)
  if (set.version !== version) throw new Error(`${name}: expected version ${set.version}, found ${version}`)
  if (!OPEN.test(spdx) || spdx !== set.licence) throw new Error(`${name}: expected ${set.licence}, the package says ${spdx}`)
  return set
}

// Names per subject; alternatives because the sets do not agree on them.
export const HEADS: Record<string, string[]> = {
  fox: ['fox', 'fox-face'],
  bear: ['bear', 'bear-face'],
  rabbit: ['rabbit-face'],
  cat: ['cat-face'],
  dog: ['dog-face'],
  panda: ['panda', 'panda-face'],
  koala: ['koala'],
  mouse: ['mouse-face'],
  lion: ['lion', 'lion-face'],
  tiger: ['tiger-face'],
  frog: ['frog', 'frog-face'],
  pig: ['pig-face'],
  monkey: ['monkey-face'],
  wolf: ['wolf', 'wolf-face'],
  raccoon: ['raccoon'],
  cow: ['cow-face']
}

export const CREATURES: Record<string, string[]> = {
  owl: ['owl'],
  hedgehog: ['hedgehog'],
  squirrel: ['chipmunk'],
  turtle: ['turtle'],
  penguin: ['penguin'],
  elephant: ['elephant'],
  duck: ['duck'],
  snail: ['snail'],
  butterfly: ['butterfly'],
  dragon: ['dragon'],
  dinosaur: ['t-rex', 'sauropod'],
  snowman: ['snowman'],
  unicorn: ['unicorn', 'unicorn-face'],
  sheep: ['ewe']
}

export const THINGS: Record<string, string[]> = {
  book: ['open-book', 'book'],
  balloon: ['balloon'],
  umbrella: ['umbrella'],
  lantern: ['red-paper-lantern'],
  flower: ['tulip'],
  gift: ['wrapped-gift'],
  kite: ['kite'],
  apple: ['red-apple'],
  teddy: ['teddy-bear'],
  cake: ['birthday-cake'],
  star: ['star'],
  sunflower: ['sunflower'],
  guitar: ['guitar'],
  icecream: ['soft-ice-cream']
}

export const SCENERY: Record<string, string[]> = {
  tree: ['deciduous-tree'],
  pine: ['evergreen-tree'],
  palm: ['palm-tree'],
  cactus: ['cactus'],
  mushroom: ['mushroom'],
  house: ['house'],
  tent: ['tent', 'camping'],
  boat: ['sailboat'],
  car: ['automobile', 'oncoming-automobile'],
  bed: ['bed'],
  couch: ['couch-and-lamp'],
  clock: ['mantelpiece-clock'],
  potted: ['potted-plant']
}

export const COLOURS: Record<string, string> = {
  red: '#d8343f',
  orange: '#f0862e',
  yellow: '#f6c63b',
  green: '#4fa65a',
  blue: '#3d7fd6',
  purple: '#8a5cc7',
  pink: '#f08fb5',
  white: '#f4f1ea',
  brown: '#8f5f3d',
  gray: '#9aa3ad',
  frost: '#c9dce6'
}

export const CLOTH = ['red', 'orange', 'yellow', 'green', 'blue', 'purple', 'pink', 'white']
export const FUR = ['red', 'blue', 'green', 'purple', 'pink', 'white', 'brown', 'gray']
// Their markings are what they are recognised by, so these keep their own colours.
export const NATURAL_ONLY = ['panda', 'koala', 'cow', 'raccoon']

export const RECOLOURED: Record<string, string[]> = {
  book: CLOTH,
  balloon: CLOTH,
  umbrella: CLOTH,
  kite: CLOTH,
  gift: CLOTH,
  flower: CLOTH,
  lantern: CLOTH,
  house: ['red', 'yellow', 'blue', 'pink', 'white'],
  tent: ['red', 'yellow', 'blue', 'green'],
  boat: ['red', 'blue', 'yellow'],
  car: ['red', 'yellow', 'blue', 'green', 'pink', 'white'],
  pine: ['frost'],
  tree: ['frost']
}
export const CREATURE_FUR = ['red', 'blue', 'green', 'purple', 'pink']
