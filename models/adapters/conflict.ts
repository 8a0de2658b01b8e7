import { layerOverlap, ratio, sparseOrthogonality, type Change, type LayerOverlap } from './overlap.ts'
import type { AdapterTarget } from './types.ts'

// How far two adapters change the same things, block by block and in words.

/** One block of a network in the comparison: `overlap` 0 to 1, 0 also where only one of the two changes anything. */
export type BlockConflict = {
  target: AdapterTarget
  block: string
  /** √(input · output), weighted by the sizes of the changes. */
  overlap: number
  input: number
  output: number
  agreement: number
  top: number
  /** Layers that both change, of those that either does. */
  shared: number
  layers: number
}

export type Conflict = {
  blocks: BlockConflict[]
  overlap: number
  agreement: number
  /** Means of SHiRA's measures, where both are sparse. */
  sparse?: { awom: number; awor: number }
  /** One sentence for the person. */
  words: string
}

const isSparse = (change: Change): change is Extract<Change, { index: Int32Array }> => 'index' in change

/** Compares two adapters block by block. */
export function compareAdapters(a: readonly Change[], b: readonly Change[]): Conflict {
  const keyOf = ({ target, path }: Change) => `${target} ${path}`
  const others = new Map(b.map((change) => [keyOf(change), change]))
  const sums = new Map<string, Sums>()
  const sumsOf = (change: Change): Sums => {
    const block = blockOf(change)
    const key = `${change.target} ${block}`
    const found = sums.get(key) ?? emptySums(change.target, block)
    sums.set(key, found)
    return found
  }
  const measures: { awom: number; awor: number }[] = []
  for (const change of a) {
    const other = others.get(keyOf(change))
    others.delete(keyOf(change))
    const sum = sumsOf(change)
    const overlap = layerOverlap(change, other ?? change)
    add(sum, overlap, other !== undefined)
    if (other && isSparse(change) && isSparse(other)) measures.push(sparseOrthogonality(change, other))
  }
  for (const change of others.values()) {
    const { norms } = layerOverlap(change, change)
    const sum = sumsOf(change)
    sum.layers++
    sum.squares[1] += norms[1] ** 2
  }
  const blocks = [...sums.values()].map(finish)
  const total = [...sums.values()].reduce(join, emptySums('unet', ''))
  const { overlap, agreement } = finish(total)
  const mean = (key: 'awom' | 'awor') => measures.reduce((sum, each) => sum + each[key], 0) / measures.length
  return {
    blocks,
    overlap,
    agreement,
    ...(measures.length > 0 ? { sparse: { awom: mean('awom'), awor: mean('awor') } } : {}),
    words: conflictWords(overlap, agreement),
  }
}

type Sums = Pick<BlockConflict, 'target' | 'block' | 'shared' | 'layers'> & {
  weighted: Record<'overlap' | 'input' | 'output' | 'agreement' | 'top', number>
  squares: [number, number]
}

const emptySums = (target: AdapterTarget, block: string): Sums => ({
  target,
  block,
  shared: 0,
  layers: 0,
  weighted: { overlap: 0, input: 0, output: 0, agreement: 0, top: 0 },
  squares: [0, 0],
})

function add(sum: Sums, layer: LayerOverlap, isShared: boolean): void {
  sum.layers++
  sum.squares[0] += layer.norms[0] ** 2
  if (!isShared) return
  sum.shared++
  sum.squares[1] += layer.norms[1] ** 2
  const weight = layer.norms[0] * layer.norms[1]
  const overlap = Math.sqrt(Math.max(0, layer.input * layer.output))
  for (const [key, value] of Object.entries({ ...layer, overlap }))
    if (key in sum.weighted) sum.weighted[key as keyof Sums['weighted']] += weight * (value as number)
}

function join(a: Sums, b: Sums): Sums {
  const weighted = { ...a.weighted }
  for (const key of Object.keys(weighted) as (keyof Sums['weighted'])[]) weighted[key] += b.weighted[key]
  return {
    ...a,
    weighted,
    shared: a.shared + b.shared,
    layers: a.layers + b.layers,
    squares: [a.squares[0] + b.squares[0], a.squares[1] + b.squares[1]],
  }
}

/** A layer counts by ‖ΔW₁‖‖ΔW₂‖ of √(Σ‖ΔW₁‖² Σ‖ΔW₂‖²): all of it adds up to 1 for an adapter and itself. */
function finish({ target, block, shared, layers, weighted, squares }: Sums): BlockConflict {
  const all = Math.sqrt(squares[0] * squares[1])
  const [overlap, input, output, agreement, top] = (['overlap', 'input', 'output', 'agreement', 'top'] as const).map(
    (key) => ratio(weighted[key], all),
  )
  return { target, block, overlap, input, output, agreement, top, shared, layers }
}

/** 'down_blocks.1', 'mid_block', 'text' and the like. */
function blockOf({ target, path }: Change): string {
  if (target !== 'unet')
    return /^text_model\.encoder\.layers\.\d+/.exec(path)?.[0].replace('text_model.encoder.', '') ?? 'text'
  return /^((down|up)_blocks\.\d+|mid_block)/.exec(path)?.[0] ?? 'ends'
}

/** What the numbers mean for a picture. */
export function conflictWords(overlap: number, agreement: number): string {
  if (overlap < 0.1) return 'They change different things and go well together.'
  const degree = overlap < 0.3 ? 'some' : overlap < 0.6 ? 'many' : 'nearly all'
  const start = `They change ${degree} of the same things`
  if (agreement < -0.1) return `${start} and pull against each other: one will weaken the other.`
  if (agreement > 0.3) return `${start} in the same way: together they are too strong at full weight, so lower both.`
  return overlap < 0.3
    ? `${start}, but not in the same way: look at the result before using both at full weight.`
    : `${start} in different ways: expect a mixture, and choose a lower weight for one.`
}
