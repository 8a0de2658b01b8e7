import type { AppliedAdapter, LayerFactors, LoadedAdapter, SlotLayer } from '../../../main/pipeline/adapter-types.ts'
import { tensor } from '../../../main/pipeline/tensor.ts'
import type { AdapterTarget } from '../../../models/adapters/types.ts'

/** Numbers that look random and are the same every time. */
export const numbers = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(seed * 7.31 + i * 12.9898) * 0.5)

/** An adapter with random factors of these ranks; `ranks` names layers of the drawing network. */
export function loraOf(
  sha256: string,
  layers: readonly SlotLayer[],
  ranks: Readonly<Record<string, number>>,
  target: AdapterTarget = 'unet',
): LoadedAdapter {
  const own = new Map<string, LayerFactors>()
  for (const [i, { path, inputs, outputs }] of layers.entries()) {
    const rank = ranks[path]
    if (rank === undefined) continue
    const seed = i + [...sha256].reduce((sum, letter) => sum * 3 + letter.charCodeAt(0), 0)
    own.set(path, {
      rank,
      down: tensor(numbers(rank * inputs, seed), [rank, inputs]),
      up: tensor(numbers(rank * outputs, seed + 0.5), [rank, outputs]),
    })
  }
  return { name: sha256, sha256, layers: { [target]: own } }
}

export const apply = (adapter: LoadedAdapter, changes: Partial<AppliedAdapter> = {}): AppliedAdapter => ({
  adapter,
  weight: 1,
  textWeight: 1,
  start: 0,
  end: 1,
  ramp: 'flat',
  ...changes,
})
