import { VignetteError } from '../errors.ts'
import { ldmNamer } from './names.ts'
import type { AdapterTarget, ModelShape } from './types.ts'

// Weights by blocks of the UNet, as people pass them on in lists (formats.md, section 5.8). The lists count the blocks of
// the original network: `in0` is its first convolution, then come resnets and samplers in their order.

type Block = string

const range = (name: string, first: number, last: number): Block[] =>
  Array.from({ length: last - first + 1 }, (_, i) => `${name}${first + i}`)
const some = (name: string, ...places: number[]): Block[] => places.map((place) => `${name}${place}`)

/** Blocks that the numbers of a list are for, by their count. `base` are the text encoders, `mid` is all of the middle. */
const layouts: Record<'small' | 'xl', readonly (readonly Block[])[]> = {
  small: [
    // The usual lists of A1111's "lbw": the blocks with attention, or all of them.
    ['base', ...some('in', 1, 2, 4, 5, 7, 8), 'mid', ...range('out', 3, 11)],
    ['base', ...range('in', 0, 11), 'mid', ...range('out', 0, 11)],
    // kohya's trainer: its first number is for nothing.
    ['none', ...range('in', 1, 11), 'mid', ...range('out', 0, 11)],
  ],
  xl: [
    ['base', ...some('in', 4, 5, 7, 8), 'mid', ...range('out', 0, 5)],
    ['base', ...range('in', 0, 8), 'mid', ...range('out', 0, 8)],
    ['time', ...range('in', 0, 8), ...range('mid', 0, 2), ...range('out', 0, 8), 'last'],
  ],
}

const roots: Record<string, string> = { input_blocks: 'in', middle_block: 'mid', output_blocks: 'out' }

/** The block of a module by its LDM name: `in4`, `mid1`, `out7`, `time` (the embeddings) or `last` (after all blocks). */
function blockOf(ldm: string): Block | undefined {
  const [root, index] = ldm.split('.')
  if (roots[root]) return `${roots[root]}${index}`
  return root === 'out' ? 'last' : root === 'time_embed' || root === 'label_emb' ? 'time' : undefined
}

/**
 * A weight for every module of a model from a list such as "1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0": 17, 25 or 26 numbers for
 * Stable Diffusion 1.x and 2.x, 12, 20 or 23 for XL. Modules in no block of the list keep their weight (1).
 */
export function blockWeights(
  list: string | readonly number[],
  shape: ModelShape,
): (target: AdapterTarget, path: string) => number {
  const numbers =
    typeof list === 'string'
      ? list
          .trim()
          .split(/\s*,\s*/)
          .map(Number)
      : [...list]
  const layout = layouts[shape.family === 'sdxl' ? 'xl' : 'small'].find((blocks) => blocks.length === numbers.length)
  if (!layout || numbers.some((value) => !Number.isFinite(value) || Math.abs(value) > 4)) {
    const counts = shape.family === 'sdxl' ? '12, 20 or 23' : '17, 25 or 26'
    throw new VignetteError(
      'bad-request',
      `Expected weights for blocks as ${counts} numbers from −4 to 4, got "${shortened(list)}".`,
      {
        hint: 'Write them with commas, the first for the text encoder: 1,0,0,0,1,1,1,1,1,1,1,1,0,0,0,0,0.',
      },
    )
  }
  const weights = new Map(layout.map((block, i) => [block, numbers[i]]))
  const ldmOf = ldmNamer(shape.layers.unet ?? new Map())
  return (target, path) => {
    if (target !== 'unet') return weights.get('base') ?? 1
    const ldm = ldmOf(path)
    const block = ldm === undefined ? undefined : blockOf(ldm)
    if (block === undefined) return 1
    return weights.get(block) ?? (block.startsWith('mid') ? weights.get('mid') : undefined) ?? 1
  }
}

const shortened = (list: string | readonly number[]) => {
  const text = typeof list === 'string' ? list : list.join(',')
  return text.length > 60 ? `${text.slice(0, 59)}…` : text
}
