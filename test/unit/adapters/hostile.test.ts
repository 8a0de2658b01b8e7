import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { inspectAdapter } from '../../../models/adapters/read.ts'
import { standardShape } from '../../../models/adapters/shape.ts'

// Headers that are made to take long or much memory: their lists are so long that anything quadratic would take minutes.

let folder: string
beforeAll(() => void (folder = mkdtempSync(join(tmpdir(), 'vignette-hostile-'))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

type Entry = { dtype: string; shape: number[]; data_offsets: [number, number] }
const place = 'unet.mid_block.attentions.0.proj_in'
const pair: Record<string, Entry> = {
  [`${place}.lora_A.weight`]: { dtype: 'F32', shape: [1, 1280], data_offsets: [0, 5120] },
  [`${place}.lora_B.weight`]: { dtype: 'F32', shape: [1280, 1], data_offsets: [5120, 10240] },
}
const empty: Entry = { dtype: 'F32', shape: [0], data_offsets: [0, 0] }
const listed = <T>(count: number, name: (i: number) => string, value: (i: number) => T) =>
  Object.fromEntries(Array.from({ length: count }, (_, i) => [name(i), value(i)]))

async function fitOf(tensors: Record<string, Entry>, metadata: Record<string, string> = {}, text?: string) {
  const header = Buffer.from(text ?? JSON.stringify({ __metadata__: metadata, ...tensors }))
  const data = Math.max(
    0,
    ...Object.values(tensors)
      .slice(0, 2)
      .map(({ data_offsets: [, end] }) => end),
  )
  const bytes = Buffer.alloc(8 + header.length + data)
  bytes.writeBigUInt64LE(BigInt(header.length))
  header.copy(bytes, 8)
  const path = join(folder, 'hostile.safetensors')
  writeFileSync(path, bytes)
  const started = performance.now()
  const info = await inspectAdapter(path, standardShape('sd15'))
  // Ten times what a slow machine needs, a hundredth of what a square of the length would.
  expect(performance.now() - started).toBeLessThan(10_000)
  return info
}

describe('long lists', () => {
  it.each([
    ['factors of modules that no model has', (i: number) => `lora_unet_x${i}.lora_down.weight`],
    ['names that mean nothing', (i: number) => `stray${i}`],
    ['modules by number', (i: number) => `unet:${i}:down`],
  ])('of %s', async (_, name) => {
    expect((await fitOf(listed(60_000, name, () => empty))).verdict.fit).toBe('refused')
  })

  it('of parts of unknown models beside one that fits', async () => {
    const { verdict } = await fitOf({
      ...pair,
      ...listed(
        60_000,
        (i) => `lora_te_x${i}.lora_up.weight`,
        () => ({ ...empty, data_offsets: [10240, 10240] as [number, number] }),
      ),
    })
    expect(verdict).toMatchObject({ fit: 'partly', message: expect.stringContaining('(60000, first') as string })
    expect(verdict.message.length).toBeLessThan(1000)
  })

  it.each([
    [
      'notes of diffusers',
      {
        lora_adapter_metadata: JSON.stringify(
          listed(
            200_000,
            (i) => `unet.k${i}`,
            (i) => i,
          ),
        ),
      },
    ],
    [
      'patterns',
      {
        lora_adapter_metadata: JSON.stringify({
          'unet.alpha_pattern': listed(
            200_000,
            (i) => `k${i}`,
            (i) => i,
          ),
        }),
      },
    ],
    [
      'tags',
      {
        ss_tag_frequency: JSON.stringify({
          '1_a': listed(
            150_000,
            (i) => `tag${i}`,
            (i) => i,
          ),
        }),
      },
    ],
    ['trigger words', { 'modelspec.trigger_phrase': 'a,'.repeat(2e6) }],
    ['brackets', { 'modelspec.title': '<'.repeat(2e6), 'modelspec.description': '<'.repeat(2e6) }],
    ['weights', { vignette_weight: '1 '.repeat(2e6), 'modelspec.usage_hint': 'weight '.repeat(3e5) }],
  ])('of %s', async (_, metadata: Record<string, string>) => {
    const info = await fitOf(pair, metadata)
    expect(info.verdict.fit).toBe('fits')
    expect(JSON.stringify(info).length).toBeLessThan(10_000)
  })
})

describe('odd texts', () => {
  it('of a name a million letters long', async () => {
    const name = `${'a_'.repeat(1e6)}.lora_down.weight`
    expect((await fitOf({ [name]: { ...empty } })).verdict.message.length).toBeLessThan(500)
    expect((await fitOf({ [`.lora_A.${'a.'.repeat(1e6)}weight`]: { ...empty } })).verdict.fit).toBe('refused')
  })

  it('nested a million deep', async () => {
    expect((await fitOf({}, {}, '['.repeat(1e6))).verdict.fit).toBe('refused')
    expect((await fitOf({}, {}, `${'{"a":'.repeat(2e5)}1${'}'.repeat(2e5)}`)).verdict.fit).toBe('refused')
  })

  it('names of things that JavaScript has', async () => {
    const names = ['__proto__.lora_A.weight', 'constructor.lora_A.weight', 'toString.alpha']
    expect((await fitOf(Object.fromEntries(names.map((name) => [name, empty])))).verdict.fit).toBe('refused')
  })

  it('markup and control characters are gone from what is shown', async () => {
    const { title, description } = await fitOf(pair, {
      'modelspec.title': 'Ink\u0007 <img src=x onerror=alert(1)> style',
      'modelspec.description': 'a<script>b</script>c',
    })
    expect(title).toBe('Ink style')
    expect(description).not.toMatch(/[<>]/)
  })
})
