// Our own drawing of a picture-book body, its clothes and what it wears. Parts are drawn in grey, where white means
// "the full tint", so one sprite serves every colour; what must stay white (stripes, buttons) is a sprite of its own.
//
// Canvas 204 x 204 with origin (-6, -12): feet at y = 186, head square from (44, 6) to (148, 110).

export type Shade = 'none' | 'soft'
export type Pose = 'stand' | 'wave' | 'hold' | 'up' | 'sit'

export const POSES: Pose[] = ['stand', 'wave', 'hold', 'up', 'sit']
export const OUTFITS = ['sweater', 'striped', 'dress', 'overalls', 'coat'] as const
export const WORN = ['scarf', 'hat', 'partyhat', 'glasses', 'bow'] as const
export const WITH_DETAIL = ['striped', 'overalls', 'coat', 'partyhat'] as const

type Part = 'tail' | 'limbs' | (typeof OUTFITS)[number] | (typeof WORN)[number]

const ARMS: Record<Pose, [string, string]> = {
  stand: ['M70 116 q-16 18 -14 38', 'M122 116 q16 18 14 38'],
  wave: ['M70 116 q-16 18 -14 38', 'M122 118 q24 -10 28 -38'],
  hold: ['M70 118 q-8 22 14 30', 'M122 118 q8 22 -14 30'],
  up: ['M70 116 q-16 18 -14 38', 'M122 118 q22 -8 24 -34'],
  sit: ['M70 118 q-8 22 14 30', 'M122 118 q8 22 -14 30']
}

const SHIRT = 'M70 107 q26 -12 52 0 q13 30 6 52 q-32 9 -64 0 q-7 -22 6 -52z'

function grey(v: number): string {
  const h = Math.round(255 * v).toString(16).padStart(2, '0')
  return `#${h}${h}${h}`
}

const stroke = (d: string, width: number, colour: string): string =>
  `<path d="${d}" fill="none" stroke="${colour}" stroke-width="${width}" stroke-linecap="round"/>`

/** Sleeves follow the arm for its first `length` units. */
const sleeves = (pose: Pose, length: number): string =>
  ARMS[pose]
    .map(
      (d) =>
        `<path d="${d}" fill="none" stroke="${grey(0.9)}" stroke-width="18" stroke-linecap="round" stroke-dasharray="${length} 200"/>`
    )
    .join('')

function tintable(part: Part, pose: Pose, main: string): string {
  const fill = (d: string, colour = main): string => `<path d="${d}" fill="${colour}"/>`
  switch (part) {
    case 'tail':
      return fill('M120 166 q34 6 40 -24 q4 -14 -8 -10 q-10 16 -34 18z', grey(0.86))
    case 'limbs': {
      const legs = pose === 'sit' ? ['M82 168 q-14 8 -22 12', 'M110 168 q14 8 22 12'] : ['M84 160 v20', 'M108 160 v20']
      return (
        legs.map((d) => stroke(d, 17, grey(0.93))).join('') +
        fill('M72 108 q24 -10 48 0 q14 34 4 58 q-28 12 -56 0 q-10 -24 4 -58z') +
        ARMS[pose].map((d) => stroke(d, 14, grey(0.95))).join('')
      )
    }
    case 'sweater':
      return fill(SHIRT) + fill('M64 153 q32 9 64 0 l-1 7 q-31 9 -62 0z', grey(0.82)) + sleeves(pose, 30)
    case 'striped':
      return fill(SHIRT) + sleeves(pose, 30)
    case 'dress':
      return (
        fill('M74 107 q22 -10 44 0 q4 16 6 26 q10 16 16 36 q-44 14 -88 0 q6 -20 16 -36 q2 -10 6 -26z') +
        fill('M72 131 q24 7 48 0 l1 6 q-25 7 -50 0z', grey(0.78)) +
        sleeves(pose, 14)
      )
    case 'overalls':
      return (
        fill('M80 118 h32 v14 h13 q6 20 0 32 q-29 10 -58 0 q-6 -12 0 -32 h13z') +
        stroke('M80 120 q-4 -8 -6 -12 M112 120 q4 -8 6 -12', 6, grey(0.9)) +
        `<rect x="88" y="136" width="16" height="11" rx="3" fill="${grey(0.82)}"/>` +
        (pose === 'sit' ? '' : stroke('M84 158 v10', 18, grey(0.9)) + stroke('M108 158 v10', 18, grey(0.9)))
      )
    case 'coat':
      return (
        fill('M70 107 q26 -12 52 0 q16 34 10 62 q-36 9 -72 0 q-6 -28 10 -62z') +
        `<path d="M96 104 v66" stroke="${grey(0.75)}" stroke-width="3"/>` +
        sleeves(pose, 36)
      )
    case 'scarf':
      return (
        fill('M66 98 q30 16 60 0 q6 8 0 16 q-30 16 -60 0 q-6 -8 0 -16z') +
        fill('M108 110 q7 16 5 36 l-16 -2 q2 -18 -4 -30z', grey(0.86))
      )
    case 'hat':
      return (
        fill('M62 22 q34 -42 68 0 q-34 10 -68 0z') +
        fill('M56 22 q40 15 80 0 q4 9 -2 12 q-38 13 -76 0 q-6 -3 -2 -12z', grey(0.84)) +
        `<circle cx="96" cy="-1" r="7" fill="${grey(0.95)}"/>`
      )
    case 'partyhat':
      return fill('M96 -8 L120 26 q-24 9 -48 0z')
    case 'glasses':
      return (
        [77, 115]
          .map(
            (x) =>
              `<circle cx="${x}" cy="60" r="13" fill="#fff" fill-opacity=".25" stroke="${grey(1)}" stroke-width="5"/>`
          )
          .join('') + `<path d="M90 58 q6 -5 12 0" fill="none" stroke="${grey(1)}" stroke-width="4.5"/>`
      )
    case 'bow':
      return (
        fill('M96 14 q-26 -18 -26 2 q0 20 26 4 q26 16 26 -4 q0 -20 -26 -2z') +
        `<circle cx="96" cy="16" r="6" fill="${grey(0.8)}"/>`
      )
  }
}

function details(part: Part): string {
  const buttons = (points: [number, number][], r: number, colour: string): string =>
    points.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="${r}" fill="${colour}"/>`).join('')
  switch (part) {
    case 'striped':
      return (
        `<clipPath id="shirt"><path d="${SHIRT}"/></clipPath><g clip-path="url(#shirt)">` +
        [114, 129, 144].map((y) => `<path d="M50 ${y} q46 9 92 0 v7 q-46 9 -92 0z" fill="#fff" opacity=".92"/>`).join('') +
        '</g>'
      )
    case 'overalls':
      return buttons([[84, 122], [108, 122]], 2.6, '#fff')
    case 'coat':
      return buttons([[103, 118], [103, 133], [103, 148]], 3, '#fff3c4')
    case 'partyhat':
      return '<path d="M86 8 l24 8 M79 18 l36 9" stroke="#fff" stroke-width="4"/>'
    default:
      return ''
  }
}

const canvas = (defs: string, body: string): string =>
  `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-6 -12 204 204" width="WW" height="WW"><defs>${defs}</defs>${body}</svg>`

export function puppetPart(part: Part, pose: Pose, shade: Shade, detail = false): string {
  if (detail) return canvas('', details(part))
  const gradient =
    `<linearGradient id="shade" x1="0" y1="0" x2="1" y2="1"><stop offset="0" stop-color="${grey(1)}"/>` +
    `<stop offset="1" stop-color="${grey(0.72)}"/></linearGradient>`
  return canvas(shade === 'soft' ? gradient : '', tintable(part, pose, shade === 'soft' ? 'url(#shade)' : grey(1)))
}
