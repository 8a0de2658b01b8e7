// Writes a checkpoint with random weights in the original single-file layout, for measurements and tests:
//   npx tsx scripts/random-checkpoint.ts OUT.safetensors [--family sd15|sd2|sdxl] [--tiny] [--dtype F16|F32|BF16] [--seed 0]
// With --names it prints the names and shapes of such a checkpoint as JSON instead.
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { floatToHalf } from '../models/graph/half.ts'
import { writeSafetensors } from '../models/checkpoint/safetensors.ts'
import type { LdmConfig } from './ldm-layout.ts'
import { ldmConfigs, ldmTensors, tinyLdmConfigs } from './ldm-layout.ts'

type Kind = 'F16' | 'BF16' | 'F32'

/** Deviation of a weight such that activations keep their size through the network; norms are 1 and biases 0. */
function deviationOf(name: string, shape: number[]): number | 'one' | 'zero' {
  if (name.endsWith('.bias') || name.endsWith('_bias')) return 'zero'
  if (shape.length <= 1) return 'one'
  if (name.includes('embedding')) return 0.02
  return 1 / Math.sqrt(shape.slice(1).reduce((product, size) => product * size, 1))
}

/** Marsaglia's xorshift: 32 bits of state, plenty for weights that only have to look random. */
function xorshift(seed: number): () => number {
  let state = (seed * 2654435761 + 0x9e3779b9) >>> 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

/**
 * 65,536 draws of a nearly normal distribution: twelve uniform ones, summed and centred (Irwin and Hall). Only sums and
 * products, so every machine makes the same file. Every weight is one of them, times its tensor's deviation.
 */
function normalTable(seed: number): Float64Array {
  const next = xorshift(seed)
  return Float64Array.from({ length: 65536 }, () => {
    let sum = 0
    for (let i = 0; i < 12; i++) sum += next() + 0.5
    return sum / 4294967296 - 6
  })
}

function encode(values: Float64Array, dtype: Kind): Uint16Array | Uint32Array {
  const floats = Float32Array.from(values)
  const bits = new Uint32Array(floats.buffer)
  if (dtype === 'F32') return bits
  return dtype === 'F16' ? Uint16Array.from(floats, floatToHalf) : Uint16Array.from(bits, (word) => word >>> 16)
}

/** Writes the file piece by piece; a full-size SD 1.5 takes a few seconds and little memory. */
export async function writeRandomCheckpoint(
  path: string,
  config: LdmConfig,
  { dtype = 'F16' as Kind, seed = 0 } = {},
): Promise<void> {
  const normal = normalTable(seed)
  const next = xorshift(seed + 1)
  const planned = ldmTensors(config).map(({ name, shape }) => ({ name, shape, dtype }))
  const piece = 1 << 20
  const tables = new Map<number | string, Uint16Array | Uint32Array>()
  await writeSafetensors(path, planned, function* ({ name, shape }) {
    const deviation = deviationOf(name, shape)
    const table =
      tables.get(deviation) ??
      encode(
        normal.map((value) => (deviation === 'one' ? 1 : deviation === 'zero' ? 0 : value * deviation)),
        dtype,
      )
    tables.set(deviation, table)
    let left = shape.reduce((product, size) => product * size, 1)
    while (left > 0) {
      const codes = new (dtype === 'F32' ? Uint32Array : Uint16Array)(Math.min(left, piece))
      for (let i = 0; i < codes.length; i++) codes[i] = table[next() & 0xffff]
      yield new Uint8Array(codes.buffer)
      left -= codes.length
    }
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      family: { type: 'string', default: 'sd15' },
      tiny: { type: 'boolean', default: false },
      dtype: { type: 'string', default: 'F16' },
      seed: { type: 'string', default: '0' },
      names: { type: 'boolean', default: false },
    },
  })
  const family = values.family as keyof typeof ldmConfigs
  const isKnown = family in ldmConfigs && ['F16', 'BF16', 'F32'].includes(values.dtype)
  const config = (values.tiny ? tinyLdmConfigs : ldmConfigs)[family]
  if (isKnown && values.names) console.log(JSON.stringify(ldmTensors(config)))
  else if (isKnown && positionals.length === 1) {
    await writeRandomCheckpoint(positionals[0], config, { dtype: values.dtype as Kind, seed: Number(values.seed) })
    console.log(`wrote ${positionals[0]}`)
  } else {
    console.error(
      'usage: npx tsx scripts/random-checkpoint.ts OUT.safetensors [--family sd15|sd2|sdxl] [--tiny] [--dtype F16|BF16|F32] [--seed 0] [--names]',
    )
    process.exitCode = 2
  }
}
