/** Draws the next `size` standard normal numbers of one generator; every call goes on where the last one stopped. */
export type NoiseSource = (size: number) => Float32Array

/**
 * Normal noise equal to PyTorch's CPU generator: `torch.Generator().manual_seed(seed)`, then `torch.randn(size)` for each
 * call, to about one unit in the last place. Seeds are whole numbers from 0 to 2³² − 1.
 */
export function normalNoise(seed: number): NoiseSource {
  const random = mersenneTwister(seed)
  let spare: number | undefined // second value of the last scalar Box–Muller pair; torch keeps it in the generator
  const scalar = (): number => {
    if (spare !== undefined) {
      const value = spare
      spare = undefined
      return value
    }
    const u1 = uniform53(random)
    const u2 = uniform53(random)
    const radius = Math.sqrt(-2 * Math.log1p(-u2))
    spare = radius * Math.sin(2 * Math.PI * u1)
    return radius * Math.cos(2 * Math.PI * u1)
  }
  return (size) => {
    const data = new Float32Array(size)
    if (size < 16) return data.map(scalar)
    // Vector path of ATen's normal_fill: one 24-bit uniform a value first, then Box–Muller inside blocks of 16.
    for (let i = 0; i < size; i++) data[i] = uniform24(random)
    for (let i = 0; i + 16 <= size; i += 16) normalBlock(data, i)
    if (size % 16 !== 0) {
      // A rest is not filled up: the last 16 values are all drawn anew.
      for (let i = size - 16; i < size; i++) data[i] = uniform24(random)
      normalBlock(data, size - 16)
    }
    return data
  }
}

/** Turns 16 uniforms into 16 normals in place; value j pairs with j + 8. Rounded to float32 where torch rounds. */
function normalBlock(data: Float32Array, start: number): void {
  const twoPi = Math.fround(2 * Math.PI)
  for (let j = start; j < start + 8; j++) {
    const radius = Math.fround(Math.sqrt(-2 * Math.fround(Math.log(1 - data[j]))))
    const theta = Math.fround(twoPi * data[j + 8])
    data[j] = radius * Math.fround(Math.cos(theta))
    data[j + 8] = radius * Math.fround(Math.sin(theta))
  }
}

function uniform24(random: () => number): number {
  return (random() & 0xffffff) / 2 ** 24
}

/** Two draws make 64 bits, high half first, of which the lower 53 count. */
function uniform53(random: () => number): number {
  const high = random() & 0x1fffff
  return (high * 2 ** 32 + random()) / 2 ** 53
}

/** MT19937 (Matsumoto & Nishimura 1998): a source of unsigned 32-bit numbers. */
function mersenneTwister(seed: number): () => number {
  const length = 624
  const state = new Uint32Array(length)
  state[0] = seed
  for (let i = 1; i < length; i++) {
    const previous = state[i - 1] ^ (state[i - 1] >>> 30)
    state[i] = Math.imul(1812433253, previous) + i
  }
  let next = length
  const regenerate = () => {
    for (let i = 0; i < length; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % length] & 0x7fffffff)
      state[i] = state[(i + 397) % length] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0)
    }
    next = 0
  }
  return () => {
    if (next === length) regenerate()
    let y = state[next++]
    y ^= y >>> 11
    y ^= (y << 7) & 0x9d2c5680
    y ^= (y << 15) & 0xefc60000
    return (y ^ (y >>> 18)) >>> 0
  }
}
