/** A dense array in C order. Floats are float32; ids are int64. `shape` multiplies to `data.length`. */
export type Tensor<T extends Float32Array | BigInt64Array = Float32Array> = { data: T; shape: readonly number[] }

export type FloatTensor = Tensor<Float32Array>
export type IdTensor = Tensor<BigInt64Array>

/** Float tensor over `data`; throws when the sizes disagree. */
export function tensor(data: Float32Array, shape: readonly number[]): FloatTensor {
  const size = shape.reduce((product, dim) => product * dim, 1)
  if (size !== data.length) throw new Error(`tensor: ${data.length} values do not fill [${shape.join(', ')}]`)
  return { data, shape }
}

/** m tensors of one shape -> [m, ...shape], a copy. */
export function stack(parts: readonly FloatTensor[]): FloatTensor {
  const size = parts[0].data.length
  const data = new Float32Array(parts.length * size)
  parts.forEach((part, i) => data.set(part.data, i * size))
  return tensor(data, [parts.length, ...parts[0].shape])
}
