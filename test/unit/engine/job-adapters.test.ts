import { describe, expect, test } from 'vitest'
import { openAdapters, type LoadedFile } from '../../../main/engine/job-adapters.ts'
import type { OpenNetworks } from '../../../main/engine/networks.ts'
import { slotsIn, type GraphVariant } from '../../../main/engine/variants.ts'
import type { LiveWeights, LoadedAdapter, LoadedGuidance } from '../../../main/pipeline/adapter-types.ts'
import { tensor } from '../../../main/pipeline/tensor.ts'
import type { AdapterInfo } from '../../../models/adapters/types.ts'
import type { SlotPlace } from '../../../models/build.ts'
import { AdapterUse } from '../../../preload/contract/generate.ts'
import { loraOf } from '../pipeline/fake-adapters.ts'

const places: SlotPlace[] = [
  { path: 'a.attn1.to_q', group: 'attention', inputs: 4, outputs: 4, isConv: false },
  { path: 'a.ff.net.2', group: 'mlp', inputs: 4, outputs: 4, isConv: false },
  { path: 'a.conv1', group: 'conv', inputs: 36, outputs: 4, isConv: true },
]
const texts: SlotPlace[] = [{ path: 't.self_attn.q_proj', group: 'attention', inputs: 4, outputs: 4, isConv: false }]

/** Records what each network is opened with. */
function fakeNetworks(singleRows = false) {
  const used: Record<string, GraphVariant> = {}
  const networks = {
    singleRows,
    has: (name: string) => name !== 'text_encoder_2',
    slots: async (part: string) => (part === 'unet' ? places : texts),
    async use(part: string, variant: GraphVariant = {}) {
      used[part] = variant
      return slotsIn(part === 'unet' ? places : texts, variant)
    },
  }
  return { used, networks: networks as unknown as OpenNetworks }
}

const ink = loraOf('ink', places, { 'a.attn1.to_q': 2 })
const conv = loraOf('conv', places, { 'a.conv1': 1 })
const text = loraOf('text', texts, { 't.self_attn.q_proj': 2 }, 'text_encoder')
const word: LoadedAdapter = {
  ...{ name: 'word', sha256: 'word', layers: {} },
  embeddings: new Map([['fable', { text_encoder: tensor(new Float32Array(4), [1, 4]) }]]),
}
const guidanceOf = (name: string): LoadedGuidance => ({
  ...{ name, sha256: name, width: 8, guidanceRange: [1, 9], inputs: {} },
  tokenOf: () => new Float32Array(8),
})

const norm: LoadedAdapter = {
  ...{ name: 'norm', sha256: 'norm', layers: {} },
  live: { unet: new Map([['a.norm1', {} as never]]) },
}
const live: LiveWeights = {
  paths: (target, adapters) => new Set([...adapters].flatMap((one) => [...(one.live?.[target]?.keys() ?? [])])),
  inputs: async () => ({ 'a.norm1.weight': tensor(Float32Array.of(1), [1]) }),
}

const read: string[] = []
async function load(file: string, rankBudget: number | undefined): Promise<LoadedFile> {
  read.push(file)
  const name = file.split('/').at(-1)!.replace('.safetensors', '')
  const info = { file, name, matched: 7, total: 9, role: name.startsWith('agd') ? 'guidance' : 'style' } as AdapterInfo
  if (rankBudget !== undefined && name === 'ink') return { info, adapter: { ...ink } } // cut: the same file, other numbers
  if (info.role === 'guidance') return { info, guidance: guidanceOf(name) }
  return { info, adapter: { ink, conv, text, word, norm }[name] }
}
const use = (name: string, changes: object = {}) =>
  AdapterUse.parse({ file: `/home/ada/${name}.safetensors`, ...changes })

async function open(uses: AdapterUse[][], singleRows = false) {
  read.length = 0
  const { used, networks } = fakeNetworks(singleRows)
  return { ...(await openAdapters(uses, 10, networks, { load, live })), used }
}

describe('networks for the adapters of a job', () => {
  test('stay plain where nothing is changed: no adapters, no weight, a closed window', async () => {
    const closed = { start: 0.5, end: 0.52 }
    for (const uses of [[], [use('ink', { weight: 0, textWeight: 0 })], [use('ink', closed)]]) {
      const { used, slots, pictures } = await open([uses])
      expect(used).toEqual({ unet: {}, text_encoder: {} })
      expect([slots, pictures]).toEqual([{}, [{ applied: [], references: [] }]])
    }
    await open([[use('ink', { weight: 0 })]])
    expect(read).toEqual([])
  })

  test('get slots in the usual groups, and further ones where an adapter needs them', async () => {
    const usual = await open([[use('ink')]])
    expect(usual.used.unet).toEqual({ slots: new Set(['attention', 'mlp']), mixed: false })
    expect(usual.used.text_encoder).toEqual({})
    expect(Object.keys(usual.slots)).toEqual(['unet'])
    const { used } = await open([[use('ink'), use('conv')]])
    expect(used.unet.slots).toEqual(new Set(['attention', 'mlp', 'conv']))
    const both = await open([[use('text'), use('word')]])
    expect(both.used.unet).toEqual({})
    expect(both.used.text_encoder).toEqual({ slots: new Set(['attention', 'mlp']), mixed: false })
    expect((await open([[use('word')]])).used.text_encoder.slots).toBeDefined()
  })

  test('stay plain where adapters weigh nothing on them', async () => {
    expect((await open([[use('text', { textWeight: 0 })]])).used).toEqual({ unet: {}, text_encoder: {} })
    const both = await open([[use('text'), use('ink', { weight: 0, textWeight: 1 })]])
    expect(both.used.unet).toEqual({})
    const one = await open([[use('text', { textWeight: 0 }), use('ink')]])
    expect([one.used.text_encoder, Object.keys(one.slots)]).toEqual([{}, ['unet']])
  })

  test('are for mixed rows only where pictures differ on the drawing network, and rows are not run alone', async () => {
    const mixed = async (uses: AdapterUse[][], singleRows?: boolean) => (await open(uses, singleRows)).used.unet.mixed
    expect(await mixed([[use('ink')], [use('ink')]])).toBe(false)
    expect(await mixed([[use('ink')], []])).toBe(true)
    expect(await mixed([[use('ink')], [use('ink', { weight: 0.5 })]])).toBe(true)
    expect(await mixed([[use('ink')], [use('ink', { end: 0.5 })]])).toBe(true)
    expect(
      await mixed([
        [use('ink'), use('conv')],
        [use('conv'), use('ink')],
      ]),
    ).toBe(false)
    expect(await mixed([[use('ink')], []], true)).toBe(false)
    expect(await mixed([[use('ink')], [use('ink', { rankBudget: 1 })]])).toBe(true)
    expect(await mixed([[use('ink'), use('text')], [use('ink')]])).toBe(false)
    expect(await mixed([[use('ink'), use('conv', { weight: 0, textWeight: 1 })], [use('ink')]])).toBe(false)
  })

  test('take the weights of modules that an adapter changes otherwise as inputs', async () => {
    const { used, slots } = await open([[use('norm')]])
    expect(used.unet).toEqual({ live: new Set(['a.norm1']) })
    expect(Object.keys((await slots.unet?.inputs([new Map()])) ?? {})).toEqual(['a.norm1.weight'])
    const both = await open([[use('norm'), use('ink')]])
    expect(both.used.unet).toEqual({ slots: new Set(['attention', 'mlp']), mixed: false, live: new Set(['a.norm1']) })
  })

  test('read each file once', async () => {
    await open([[use('ink'), use('ink', { start: 0.5 })], [use('ink')], [use('ink', { rankBudget: 1 })]])
    expect(read).toHaveLength(2)
  })
})

test('the recipe of each picture names what was applied, without a path', async () => {
  const { pictures } = await open([
    [use('ink', { end: 0.5 }), use('conv', { weight: 0 })],
    [use('word', { rankBudget: 4 })],
  ])
  expect(pictures.map(({ references }) => references)).toEqual([
    [
      {
        name: 'ink.safetensors',
        sha256: 'ink',
        weight: 0.8,
        textWeight: 0.8,
        start: 0,
        end: 0.5,
        ramp: 'flat',
        matched: 7,
        total: 9,
      },
    ],
    [
      {
        ...{ name: 'word.safetensors', sha256: 'word', weight: 0.8, textWeight: 0.8, start: 0, end: 1, ramp: 'flat' },
        ...{ matched: 7, total: 9, rankBudget: 4, isEmbedding: true },
      },
    ],
  ])
  expect(JSON.stringify(pictures.map(({ references }) => references))).not.toContain('/home')
})

describe('a guidance adapter', () => {
  test('opens the drawing network for it, with slots or without', async () => {
    const alone = await open([[use('agd')]])
    expect(alone.guidance?.name).toBe('agd')
    expect(alone.used.unet).toEqual({ guidance: { width: 8 } })
    expect(alone.pictures[0].references[0]).toMatchObject({ name: 'agd.safetensors', weight: 1, isGuidance: true })
    const both = await open([[use('ink'), use('agd')]])
    expect(both.used.unet).toEqual({ slots: new Set(['attention', 'mlp']), mixed: false, guidance: { width: 8 } })
    expect(alone.notices).toEqual([])
    expect((await open([[use('agd', { weight: 0.5 })]])).notices).toEqual([
      '"agd" acts at every step, as strongly as the guidance scale says.',
    ])
  })

  test('is one, for all pictures or for none', async () => {
    await expect(open([[use('agd'), use('agd2')]])).rejects.toThrow('"agd" and "agd2" both stand in for guidance.')
    await expect(open([[use('agd')], [use('ink')]])).rejects.toMatchObject({ code: 'bad-request' })
    expect((await open([[use('agd')], [use('ink'), use('agd')]])).guidance?.name).toBe('agd')
  })
})
