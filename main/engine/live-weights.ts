import type { BaseWeights } from '../../models/adapters/base.ts'
import { comesLast } from '../../models/adapters/dense.ts'
import { openLiveModule, type LiveChange, type LiveModule } from '../../models/adapters/live.ts'
import type { AdapterTarget } from '../../models/adapters/types.ts'
import type { MatMul } from '../../models/quantize/algebra.ts'
import type { LiveWeights, LoadedAdapter } from '../pipeline/adapter-types.ts'
import { tensor, type FloatTensor } from '../pipeline/tensor.ts'

/**
 * The weights of modules as inputs, made of the base when first asked for and kept as long as the network has them. What
 * adds up is summed in an order that does not depend on how the adapters are listed; DoRA and OFT come after it as listed.
 * What other adapters add through slots is added after both.
 */
export function createLiveWeights(base: () => Promise<BaseWeights>, matMul: MatMul): LiveWeights & { release(): void } {
  const modules = new Map<AdapterTarget, Map<string, { module: LiveModule; inputs: Record<string, FloatTensor> }>>()

  const open = async (target: AdapterTarget, path: string) => {
    const weights = await base()
    const module = await openLiveModule(() => weights.module(target, path, matMul), matMul)
    const inputs: Record<string, FloatTensor> = { [`${path}.weight`]: tensor(module.weight, module.shape) }
    if (module.bias) inputs[`${path}.bias`] = tensor(module.bias, [module.bias.length])
    return { module, inputs }
  }

  return {
    paths: (target, adapters) => new Set([...adapters].flatMap(({ live }) => [...(live?.[target]?.keys() ?? [])])),
    async inputs(target, paths, weights) {
      const present = modules.get(target) ?? new Map()
      modules.set(target, present)
      for (const path of [...present.keys()]) if (!paths.has(path)) present.delete(path)
      const all: Record<string, FloatTensor> = {}
      for (const path of paths) {
        const opened = present.get(path) ?? (await open(target, path))
        present.set(path, opened)
        await opened.module.apply(changesOf(target, path, weights))
        Object.assign(all, opened.inputs)
      }
      return all
    },
    release: () => modules.clear(),
  }
}

function changesOf(target: AdapterTarget, path: string, weights: ReadonlyMap<LoadedAdapter, number>): LiveChange[] {
  const changes = [...weights].flatMap(([{ sha256, live }, weight]) =>
    weight === 0 ? [] : (live?.[target]?.get(path) ?? []).map((part) => ({ sha256, change: { ...part, weight } })),
  )
  const [last, first] = [true, false].map((isLast) => changes.filter(({ change }) => comesLast(change.part) === isLast))
  first.sort((a, b) => (a.sha256 < b.sha256 ? -1 : a.sha256 > b.sha256 ? 1 : 0))
  return [...first, ...last].map(({ change }) => change)
}
