// Parts that make the four named characters. The base model never sees them: they are what character adapters learn.

const ring = (x: number, y: number, colour: string): string =>
  [0, 72, 144, 216, 288]
    .map((a) => (a * Math.PI) / 180)
    .map((a) => `<circle cx="${(x + 6 * Math.cos(a)).toFixed(2)}" cy="${(y + 6 * Math.sin(a)).toFixed(2)}" r="5" fill="${colour}"/>`)
    .join('') + `<circle cx="${x}" cy="${y}" r="4" fill="#e08b2c"/>`

const dots = (points: number[][], r: number): string =>
  points.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="${r}" fill="#fff"/>`).join('')

const PARTS: Record<string, string> = {
  acorn:
    '<path d="M58 30 q38 -50 76 0 q-38 14 -76 0z" fill="#8a5a34"/>' +
    '<path d="M58 28 q38 16 76 0 q6 8 0 12 q-38 14 -76 0 q-6 -4 0 -12z" fill="#6e4526"/>' +
    '<path d="M96 -2 q2 -8 8 -10" stroke="#5a381f" stroke-width="5" fill="none" stroke-linecap="round"/>',
  dots: dots([[80, 122], [100, 118], [116, 130], [88, 140], [106, 146], [72, 150], [122, 152]], 4.4),
  // Wider than the body on both sides: it lies behind, and only its wings are seen.
  cape:
    '<path d="M76 100 q-46 30 -50 80 q70 16 140 0 q-4 -50 -50 -80z" fill="#2c3a78"/>' +
    [[42, 158], [54, 136], [40, 178], [150, 158], [138, 136], [152, 178]]
      .map(([x, y]) => `<path d="M${x} ${y! - 7} l2.4 4.6 5.6 1.2 -4.4 3.4 1 5.8 -4.6 -3.2 -4.6 3.2 1 -5.8 -4.4 -3.4 5.6 -1.2z" fill="#ffd65a"/>`)
      .join(''),
  crescent: '<path d="M90 14 a16 16 0 1 0 18 21 a13.5 13.5 0 0 1 -18 -21z" fill="#ffd65a"/>',
  goggles:
    '<path d="M50 44 q46 -16 92 0" stroke="#5b3a28" stroke-width="9" fill="none"/>' +
    [78, 114].map((x) => `<circle cx="${x}" cy="36" r="15" fill="#b9e4f2" stroke="#7a5234" stroke-width="6"/>`).join('') +
    '<path d="M72 32 l8 -6 M108 32 l8 -6" stroke="#fff" stroke-width="3"/>',
  bandana:
    '<path d="M64 100 q32 16 64 0 q6 8 2 12 l-34 26 -34 -26 q-4 -4 2 -12z" fill="#d8343f"/>' +
    dots([[84, 114], [98, 120], [110, 113], [96, 108]], 2.6),
  flowers:
    ring(60, 30, '#f08fb5') +
    ring(74, 18, '#f6c63b') +
    ring(92, 12, '#ffffff') +
    ring(110, 14, '#f08fb5') +
    ring(126, 22, '#f6c63b') +
    ring(136, 34, '#ffffff'),
  stripes: '<path d="M70 120 q26 8 52 0 v7 q-26 8 -52 0z M68 136 q28 9 56 0 v7 q-28 9 -56 0z" fill="#f6c63b"/>'
}

export const IDENTITY: Record<string, string> = Object.fromEntries(
  Object.entries(PARTS).map(([name, body]) => [
    name,
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="-6 -12 204 204" width="WW" height="WW">${body}</svg>`
  ])
)
