/** Normal draws, the same for the same seed. */
export function normals(seed: number): () => number {
  let state = seed >>> 0
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state + 0.5) / 2 ** 32
  }
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform())
}

export function normalMatrix(rows: number, columns: number, seed: number, deviation = 1): Float32Array {
  const draw = normals(seed)
  return Float32Array.from({ length: rows * columns }, () => deviation * draw())
}

/**
 * A layer as trained ones are: inputs [rows, k] that follow a few causes, some channels far louder than the others;
 * weights [n, k] with a few strong directions, large where the input is quiet.
 */
export function plantedLayer({ n, k, rows, seed = 1 }: { n: number; k: number; rows: number; seed?: number }) {
  const draw = normals(seed)
  const causes = 12
  const mix = normalMatrix(causes, k, seed + 1)
  const loudness = Float32Array.from({ length: k }, (_, i) => (i % 32 === 7 ? 20 : Math.exp(0.3 * draw())))
  const x = new Float32Array(rows * k)
  for (let row = 0; row < rows; row++) {
    const cause = Float32Array.from({ length: causes }, draw)
    for (let i = 0; i < k; i++) {
      let value = 1.5 * draw()
      for (let c = 0; c < causes; c++) value += cause[c] * mix[c * k + i]
      x[row * k + i] = value * loudness[i]
    }
  }
  const values = normalMatrix(n, k, seed + 2, 0.04)
  for (let direction = 0; direction < 6; direction++) {
    const left = normalMatrix(n, 1, seed + 3 + direction, 0.1)
    const right = normalMatrix(k, 1, seed + 20 + direction)
    for (let row = 0; row < n; row++) for (let i = 0; i < k; i++) values[row * k + i] += left[row] * right[i]
  }
  for (let i = 0; i < values.length; i++) values[i] /= Math.sqrt(loudness[i % k])
  return { values, x }
}
