import { floatToHalf } from '../graph/half.ts'
import { writeSafetensors, type PlannedTensor } from '../checkpoint/safetensors.ts'
import { scaled, type RawLayer, type SourceTensor } from './deltas.ts'
import { takeOut, type Inverse } from './inverse.ts'
import type { ModelShape } from './types.ts'
import { writeAdapter } from './write.ts'

/** True where the file has the very tensors of the original, names and bytes: `contentHash` is then the same, too. */
export type SplitFile = { file: string; isOriginal: boolean }

/** Writes one adapter that was taken out of a merged file, as the file it came from where that can be made again. */
export async function writeSplit(
  file: string,
  inverse: Inverse,
  which: number,
  merged: readonly RawLayer[],
  shape: ModelShape,
): Promise<SplitFile> {
  const layers = takeOut(inverse, which, merged)
  const { metadata = {}, name, error, layers: kept } = inverse.members[which]
  if (layers.every(({ source }) => source && [source.down, source.up, source.alpha ?? source.up].every(isExact))) {
    const tensors = layers.flatMap(originals)
    const bytes = new Map(tensors.map((tensor) => [tensor.name, tensor.bytes]))
    if (bytes.size === tensors.length) {
      await writeSafetensors(file, tensors, (tensor) => [bytes.get(tensor.name)!], { ...metadata })
      return { file, isOriginal: true }
    }
  }
  // Notes of other programs about how the numbers lie in the file were true of the original alone.
  const told = Object.entries(metadata).filter(
    ([key]) => !/^(ss_network|sshs|lora_adapter|format|modelspec\.(impl|hash))/.test(key),
  )
  const more = { ...Object.fromEntries(told), vignette_split_error: error.toPrecision(3) }
  const isShort = kept.some(({ source }) => source?.up.dtype === 'F16' || source?.up.dtype === 'BF16')
  await writeAdapter(file, layers.map(scaled), {
    shape,
    storage: isShort ? 'F16' : 'F32',
    notes: { title: name, more },
  })
  return { file, isOriginal: false }
}

const isExact = ({ name, dtype }: SourceTensor) => name !== '' && ['F16', 'BF16', 'F32'].includes(dtype)

type Bytes = PlannedTensor & { bytes: Uint8Array }

function originals({ source, down, up }: RawLayer): Bytes[] {
  if (!source) throw new Error('a layer without its tensors')
  const tensor = ({ name, dtype, shape }: SourceTensor, values: Float32Array): Bytes => ({
    ...{ name, dtype, shape: [...shape] },
    bytes: encoded(values, dtype),
  })
  const { alpha } = source
  return [
    tensor(source.down, down),
    tensor(source.up, up),
    ...(alpha ? [tensor(alpha, Float32Array.of(alpha.value))] : []),
  ]
}

/** Exact: the values are numbers of the type. */
function encoded(values: Float32Array, dtype: SourceTensor['dtype']): Uint8Array {
  const bits = new Uint32Array(values.slice().buffer)
  const words =
    dtype === 'F32'
      ? bits
      : dtype === 'F16'
        ? Uint16Array.from(values, floatToHalf)
        : Uint16Array.from(bits, (b) => b >>> 16)
  return new Uint8Array(words.buffer)
}
