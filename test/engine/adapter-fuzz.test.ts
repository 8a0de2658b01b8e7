import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { inspectAdapter } from '../../models/adapters/read.ts'
import { modelShape } from '../../models/adapters/shape.ts'
import { writeSafetensors } from '../../models/checkpoint/safetensors.ts'
import { clipL } from '../../models/clip.ts'
import { sd15Unet } from '../../models/unet.ts'

// Files from anywhere: whatever is in one, there is a verdict, soon and in little memory.

const shape = modelShape('sd15', [
  { part: 'unet', config: { ...sd15Unet, blockOutChannels: [32, 64, 64, 64], crossAttentionDim: 48 } },
  { part: 'text_encoder', config: { ...clipL, hiddenSize: 48, intermediateSize: 96, layers: 2, heads: 4 } },
])

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'vignette-fuzz-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Numbers 0 … 1 that are the same every time (mulberry32). */
function randomNumbers(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

const q = 'down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q'
const seeds: [Record<string, number[]>, Record<string, string>][] = [
  [
    {
      [`lora_unet_${q.replaceAll('.', '_')}.lora_down.weight`]: [4, 32],
      [`lora_unet_${q.replaceAll('.', '_')}.lora_up.weight`]: [32, 4],
      [`lora_unet_${q.replaceAll('.', '_')}.alpha`]: [],
    },
    { ss_tag_frequency: '{"1_a":{"b":2}}', ss_base_model_version: 'sd_v1' },
  ],
  [
    {
      [`${q}.lokr_w1`]: [4, 8],
      [`${q}.lokr_w2_a`]: [8, 2],
      [`${q}.lokr_w2_b`]: [2, 4],
      [`${q}.dora_scale`]: [32, 1],
      [`${q}.on_input`]: [],
      [`${q}.weight`]: [32],
    },
    { lora_adapter_metadata: '{"unet.r":4,"unet.alpha_pattern":{"to_q":2}}' },
  ],
  [
    { 'unet:0:down': [4, 32], 'unet:0:up': [32, 4], '<s1>': [768], emb_params: [2, 768], clip_l: [1, 768] },
    { unet: '["CrossAttention"]', '<s1>': '<embed>' },
  ],
  [
    {
      'guidance.frequencies': [8],
      'sites.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight': [8, 64],
      'time.weight': [8, 128],
    },
    {
      vignette_kind: 'guidance',
      width: '8',
      guidance_min: '1',
      guidance_max: '8',
      vignette_steps: '4',
      vignette_timesteps: '[1,2]',
    },
  ],
]

const joined = (...parts: Uint8Array[]) => new Uint8Array(Buffer.concat(parts))

/** The bytes changed somewhere: bits, numbers in the header, pieces cut out, doubled or swapped, the end cut off. */
function mutated(bytes: Uint8Array, random: () => number): Uint8Array {
  let copy = Uint8Array.from(bytes)
  const header = 8 + Number(Buffer.from(bytes.buffer, bytes.byteOffset, 8).readBigUInt64LE())
  const inHeader = () => Math.floor(random() * Math.min(header, copy.length))
  for (let i = 0, times = 1 + Math.floor(random() * 4); i < times && copy.length > 0; i++) {
    const at = inHeader()
    const kind = Math.floor(random() * 7)
    if (kind === 0) copy[at] ^= 1 << Math.floor(random() * 8)
    else if (kind === 1) copy[at] = Math.floor(random() * 256)
    else if (kind === 2) copy = copy.subarray(0, Math.floor(random() * copy.length))
    else if (kind === 3) copy = joined(copy.subarray(0, at), copy.subarray(at + Math.floor(random() * 20)))
    else if (kind === 4) copy = joined(copy.subarray(0, at), copy.subarray(Math.max(0, at - 30), at), copy.subarray(at))
    else if (kind === 5) {
      const digit = [...copy.subarray(0, header).keys()].filter((j) => j >= 8 && copy[j] >= 48 && copy[j] <= 57)
      if (digit.length > 0) copy[digit[Math.floor(random() * digit.length)]] = 48 + Math.floor(random() * 10)
    } else
      new DataView(copy.buffer).setUint8(
        Math.min(copy.length - 1, Math.floor(random() * 8)),
        Math.floor(random() * 256),
      )
  }
  return copy
}

it('gives a verdict on 10,000 files that were tampered with', { timeout: 120_000 }, async () => {
  const originals: Uint8Array[] = []
  for (const [i, [tensors, metadata]] of seeds.entries()) {
    const path = join(folder, `seed-${i}.safetensors`)
    const planned = Object.entries(tensors).map(([name, dims]) => ({ name, dtype: 'F32' as const, shape: dims }))
    const zeros = (dims: readonly number[]) => new Uint8Array(4 * dims.reduce((a, b) => a * b, 1))
    await writeSafetensors(path, planned, ({ shape: dims }) => [zeros(dims)], metadata)
    originals.push(readFileSync(path))
  }
  const random = randomNumbers(7)
  const fits = new Map<string, number>()
  const before = process.memoryUsage.rss()
  let slowest = 0
  for (let i = 0; i < 10_000; i++) {
    const file = join(folder, i % 20 === 0 ? 'fuzz.pt' : 'fuzz.safetensors')
    writeFileSync(file, mutated(originals[i % originals.length], random))
    const started = performance.now()
    const { verdict } = await inspectAdapter(file, i % 3 === 0 ? undefined : shape)
    slowest = Math.max(slowest, performance.now() - started)
    if (verdict.message === '') throw new Error(`no words for file ${i}`)
    fits.set(verdict.fit, (fits.get(verdict.fit) ?? 0) + 1)
  }
  // Every way out was taken, none of them for long, and nothing is kept.
  expect(fits.get('refused')).toBeGreaterThan(1000)
  expect(fits.get('fits')).toBeGreaterThan(20)
  expect(fits.get('partly')).toBeGreaterThan(20)
  expect(slowest).toBeLessThan(5000)
  expect(process.memoryUsage.rss() - before).toBeLessThan(400e6)
})
