import type { MatMul } from '../quantize/algebra.ts'
import type { BaseModule } from './base.ts'
import { smooth } from './base.ts'
import type { Change } from './dense.ts'
import { changedBias, changedWeight } from './dense.ts'
import type { PartNumbers } from './numbers.ts'
import { need } from './numbers.ts'
import type { AdapterPart } from './types.ts'

/** What an adapter does to one module otherwise than by factors; mostly one thing. */
export type LivePart = readonly {
  part: AdapterPart
  numbers: PartNumbers
  /** Of a LoRA whose factors are in a slot only the bias is left. */
  isBiasOnly?: boolean
}[]

export type LiveChange = LivePart[number] & { weight: number }

/** A module whose weights come with each run: arrays that stay the same and are filled anew when adapters change. */
export interface LiveModule {
  readonly shape: readonly number[]
  /** As the graph takes them, smoothing included. */
  readonly weight: Float32Array
  readonly bias?: Float32Array
  /** Makes them those of the base with these changes; true when anything had to be done. */
  apply(changes: readonly LiveChange[]): Promise<boolean>
}

/**
 * A live module over a base that can be read again: it is not kept, for weights in float32 take enough. Sparse changes are
 * the exception (SHiRA): they are scattered into the weights as they lie, and what was there before is put back.
 */
export async function openLiveModule(readBase: () => Promise<BaseModule>, matMul: MatMul): Promise<LiveModule> {
  const base = await readBase()
  const { shape, rows, columns } = base
  const [weight, bias] = [base.weight, base.bias]
  smooth(base, { rows, columns }, 'on')
  const width = shape.length > 1 ? weight.length / shape[0] : 1
  const scaleAt = (place: number) => (rows?.[Math.floor(place / width)] ?? 1) * (columns?.[place % width] ?? 1)

  let applied: readonly LiveChange[] = []
  /** True base weights at the places of each sparse part; known once the base has been seen with nothing in it. */
  const originals = new WeakMap<PartNumbers, Float32Array>()

  const restore = () => {
    for (const { numbers } of applied) {
      const kept = originals.get(numbers)!
      numbers.places!.forEach((place, i) => (weight[place] = kept[i]))
    }
  }
  const scatter = (changes: readonly LiveChange[]) => {
    for (const { numbers } of changes) {
      if (!originals.has(numbers))
        originals.set(
          numbers,
          Float32Array.from(numbers.places!, (place) => weight[place]),
        )
    }
    for (const { part, numbers, weight: share } of changes) {
      const { data } = need(part, numbers, 'sparse_delta')
      numbers.places!.forEach((place, i) => (weight[place] += share * data[i] * scaleAt(place)))
    }
  }

  const recompute = async (changes: readonly LiveChange[]) => {
    const fresh = await readBase()
    const onWeight = changes.filter(({ isBiasOnly }) => !isBiasOnly) as Change[]
    const made = {
      weight: onWeight.length > 0 ? await changedWeight(fresh.weight, shape, onWeight, matMul) : fresh.weight,
      ...(fresh.bias ? { bias: changedBias(fresh.bias, changes) } : {}),
    }
    smooth(made, { rows, columns }, 'on')
    weight.set(made.weight)
    if (bias && made.bias) bias.set(made.bias)
  }

  const isSparse = (changes: readonly LiveChange[]) => changes.every(({ part }) => part.kind === 'sparse')
  return {
    shape,
    weight,
    ...(bias ? { bias } : {}),
    async apply(changes) {
      const isSame =
        changes.length === applied.length &&
        changes.every(({ numbers, weight }, i) => applied[i].numbers === numbers && applied[i].weight === weight)
      if (isSame) return false
      if (isSparse(changes) && isSparse(applied)) {
        restore()
        scatter(changes)
      } else if (isSparse(changes)) {
        await recompute([])
        scatter(changes)
      } else await recompute(changes)
      applied = changes
      return true
    },
  }
}
