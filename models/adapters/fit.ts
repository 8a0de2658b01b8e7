import type { StoredTensor } from '../graph/weights.ts'
import type { AdapterPart, PartKind, TensorRole } from './types.ts'

// Whether the tensors of a part can change a module of this shape: the only proof that a file belongs to a model.

type Tensors = AdapterPart['tensors']
type Layer = { weight: readonly number[]; bias?: readonly number[] }

const count = (shape: readonly number[]) => shape.reduce((product, dim) => product * dim, 1)
const same = (a: readonly number[], b: readonly number[]) => trimmed(a).join() === trimmed(b).join()

function trimmed(shape: readonly number[]): readonly number[] {
  let end = shape.length
  while (end > 0 && shape[end - 1] === 1) end--
  return shape.slice(0, end)
}

/** What kind of change these tensors are, or undefined when they are no whole one. */
export function kindOf(tensors: Tensors): PartKind | undefined {
  const has = (...roles: TensorRole[]) => roles.every((role) => tensors[role])
  if (has('hada_w1_a', 'hada_w1_b', 'hada_w2_a', 'hada_w2_b')) return 'loha'
  if ((has('lokr_w1') || has('lokr_w1_a', 'lokr_w1_b')) && (has('lokr_w2') || has('lokr_w2_a', 'lokr_w2_b')))
    return 'lokr'
  if (has('a1', 'a2', 'b1', 'b2')) return 'glora'
  if (tensors.oft_blocks) return tensors.oft_blocks.shape.length === 4 ? 'boft' : 'oft'
  if (tensors.ia3) return 'ia3'
  if (has('sparse_index', 'sparse_delta')) return 'sparse'
  if (has('down', 'up')) return 'lora'
  return tensors.diff || tensors.diff_b ? 'diff' : undefined
}

/** Rank of the part, where it has one. */
export function rankOf(kind: PartKind, tensors: Tensors): number | undefined {
  if (kind === 'lora') return tensors.down?.shape[0]
  if (kind === 'loha') return (tensors.hada_t1 ? tensors.hada_w1_a : tensors.hada_w1_b)?.shape[0]
  if (kind === 'lokr') return (tensors.lokr_w2_b ?? tensors.lokr_w1_b)?.shape[0]
  return kind === 'glora' ? tensors.a2?.shape[0] : undefined
}

/** Whether the part goes with the module. `path` is given where the module has one of its own. */
export function fitsLayer(kind: PartKind, tensors: Tensors, layer: Layer, path = ''): boolean {
  const n = layer.weight[0]
  const k = count(layer.weight.slice(1))
  const inputs = layer.weight[1] ?? 1
  const kernel = layer.weight.slice(2)
  const dims = (role: TensorRole) => tensors[role]?.shape ?? []
  const { magnitude, diff_b: biasDelta, up_bias: upBias } = tensors
  if (Object.values(tensors).some((tensor) => count(tensor.shape) === 0)) return false
  if (magnitude && ![n, inputs].includes(count(magnitude.shape))) return false
  if (biasDelta && (!layer.bias || count(biasDelta.shape) !== n)) return false
  if (upBias && (!layer.bias || count(upBias.shape) !== n)) return false
  switch (kind) {
    case 'lora': {
      const [down, up, mid] = [dims('down'), dims('up'), tensors.mid?.shape]
      const r = down[0]
      if (r === 0 || up[0] !== n || count(up) !== n * r) return false
      if (mid) return count(down) === r * inputs && same(mid, [r, r, ...kernel])
      // An inpainting model reads a mask and a picture besides the latents, which an adapter for other models does not know.
      const isNarrower = path === 'conv_in' && down[1] < inputs && count(down) === (r * k * down[1]) / inputs
      return (
        (count(down) === r * k || isNarrower) && (down.length < 3 || kernel.length === 0 || same(down.slice(2), kernel))
      )
    }
    case 'loha': {
      const [a1, b1, a2, b2] = [dims('hada_w1_a'), dims('hada_w1_b'), dims('hada_w2_a'), dims('hada_w2_b')]
      if (!tensors.hada_t1 || !tensors.hada_t2)
        return isProduct(a1, b1, n, k) && isProduct(a2, b2, n, k) && !tensors.hada_t1 && !tensors.hada_t2
      const isTucker = (a: readonly number[], b: readonly number[], t: readonly number[]) =>
        same(t, [b[0], a[0], ...kernel]) === true && a[1] === n && b[1] === inputs
      return isTucker(a1, b1, dims('hada_t1')) && isTucker(a2, b2, dims('hada_t2'))
    }
    case 'lokr': {
      const w1 = tensors.lokr_w1?.shape ?? product(dims('lokr_w1_a'), dims('lokr_w1_b'))
      const tucker = tensors.lokr_t2?.shape
      const w2 =
        tensors.lokr_w2?.shape ??
        (tucker
          ? [dims('lokr_w2_a')[1], dims('lokr_w2_b')[1], ...tucker.slice(2)]
          : product(dims('lokr_w2_a'), dims('lokr_w2_b')))
      if (!w1 || !w2) return false
      return w1[0] * w2[0] === n && count(w1.slice(1)) * count(w2.slice(1)) === k
    }
    case 'glora': {
      const [a1, a2, b1, b2] = [dims('a1'), dims('a2'), dims('b1'), dims('b2')]
      const isInput = same(a1, [inputs, a2[0]]) && count(a2) === a2[0] * inputs
      const core = tensors.bm?.shape
      if (core) return isInput && same(core, [b1[1], b2[0], ...kernel]) && b1[0] === n && count(b2) === b2[0] * inputs
      return isInput && same(b1, [n, b2[0]]) && count(b2) === b2[0] * k
    }
    case 'oft':
    case 'boft': {
      if (tensors.oft_rescale && count(tensors.oft_rescale.shape) !== n) return false
      const blocks = dims('oft_blocks')
      if (blocks.length === 2) return blocks[0] > 0 && (n % blocks[0] === 0 || k % blocks[0] === 0)
      return blocks.at(-1) === blocks.at(-2) && blocks.at(-1)! * blocks.at(-3)! === n
    }
    case 'ia3':
      return [n, inputs].includes(count(dims('ia3')))
    case 'diff':
      return !tensors.diff || same(tensors.diff.shape, layer.weight) || same(tensors.diff.shape, [n, k])
    case 'sparse': {
      const [index, delta] = [dims('sparse_index'), dims('sparse_delta')]
      return (
        delta.length === 1 && delta[0] <= n * k && index.at(-1) === delta[0] && (index.length === 1 || index[0] === 2)
      )
    }
    default:
      return kind satisfies never
  }
}

const isProduct = (a: readonly number[], b: readonly number[], n: number, k: number) =>
  a.length === 2 && b.length === 2 && a[0] === n && a[1] === b[0] && b[1] === k

function product(a: readonly number[], b: readonly number[]): number[] | undefined {
  return a.length >= 2 && b.length >= 2 && a[1] === b[0] ? [a[0], ...b.slice(1)] : undefined
}

/** Bits of the numbers, in words for a card. */
export function precisionOf(tensors: Iterable<StoredTensor>): string {
  const words: Record<string, string> = {
    F32: 'fp32',
    F16: 'fp16',
    BF16: 'bf16',
    F8_E4M3: 'fp8',
    F8_E5M2: 'fp8',
    F64: 'fp64',
  }
  const sums = new Map<string, number>()
  for (const { dtype, length } of tensors)
    sums.set(words[dtype] ?? dtype.toLowerCase(), (sums.get(words[dtype] ?? dtype.toLowerCase()) ?? 0) + length)
  return [...sums].sort((a, b) => b[1] - a[1])[0]?.[0] ?? 'unknown'
}
