import { beforeAll, describe, expect, test } from 'vitest'
import type { AppliedAdapter, LiveWeights, LoadedGuidance } from '../../../main/pipeline/adapter-types.ts'
import { generate, type GenerateOptions } from '../../../main/pipeline/generate.ts'
import { createSlots } from '../../../main/pipeline/slots.ts'
import type { FloatTensor } from '../../../main/pipeline/tensor.ts'
import { createTextCache } from '../../../main/pipeline/text-cache.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import type { GenerateEvent, GenerateJob, Networks } from '../../../main/pipeline/types.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'
import { apply, loraOf } from './fake-adapters.ts'
import { gaussianNetworks, smallJob } from './gaussian-networks.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  tokenizer = createTokenizer(await readClipMerges())
})

const layers = [{ path: 'a', inputs: 4, outputs: 3, isConv: false }]
const [ink, wash, slow, fast] = ['ink', 'wash', 'slow', 'fast'].map((name) => loraOf(name, layers, { a: 1 }))
const written = loraOf('written', layers, { a: 2 }, 'text_encoder')
const slots = (isMixed = false) => ({
  unet: createSlots('unet', layers, { isMixed }),
  text_encoder: createSlots('text_encoder', layers),
})

type Call = { network: string; inputs: Record<string, FloatTensor> }

/** Draws, and gives what every network was fed. */
async function draw(
  job: Partial<GenerateJob>,
  options: GenerateOptions = { slots: slots() },
  over: Partial<Networks> = {},
) {
  const calls: Call[] = []
  const inner = gaussianNetworks()
  const networks: Networks = {
    ...inner,
    ...over,
    async run(network, inputs, outputs) {
      calls.push({ network, inputs: inputs as Record<string, FloatTensor> })
      // The whole network hands up a feature that never changes: every guess is right.
      const made = await inner.run(network === 'unet_shallow' ? 'unet' : network, inputs, outputs)
      return { ...made, deep: { data: Float32Array.of(1), shape: [1, 1] } }
    },
  }
  const events: GenerateEvent[] = []
  for await (const event of generate(smallJob(job), networks, tokenizer, options)) events.push(event)
  const scales = calls.flatMap(({ network, inputs }) =>
    network === 'unet' ? [[...(inputs['a.scale']?.data ?? [])]] : [],
  )
  const notices = events.flatMap((event) => (event.type === 'notice' ? [event.message] : []))
  return { calls, scales, notices, runs: calls.map(({ network }) => network) }
}
const rounded = (rows: number[][]) => rows.map((row) => row.map((value) => Math.round(value * 1000) / 1000))

describe('weights over the steps', () => {
  test('follow window and ramp', async () => {
    const adapters = [apply(ink, { weight: 0.8, ramp: 'ease-in' }), apply(wash, { start: 0.5 })]
    const { scales } = await draw({ steps: 4, adapters })
    expect(rounded(scales)).toEqual([[0], [0.267], [0.533, 1], [0.8, 1]])
  })

  test('change between steps, not within one, with samplers that ask twice', async () => {
    const adapters: AppliedAdapter[] = [apply(slow, { weight: 0.25, end: 0.5 }), apply(fast, { start: 0.5 })]
    const { scales } = await draw({ steps: 4, sampler: 'heun', adapters })
    expect(scales).toEqual([[0.25], [0.25], [0.25], [0.25], [1], [1], [1]])
  })

  test('belong to noise levels: with a start picture the first steps, and what acts in them, are left out', async () => {
    const image = { data: new Uint8Array(64 * 64 * 3).fill(90), width: 64, height: 64 }
    const adapters = [apply(slow, { weight: 0.25, end: 0.5 }), apply(fast, { start: 0.5 })]
    const { scales } = await draw({ steps: 8, adapters, init: { image, strength: 0.625 } })
    expect(scales).toEqual([[0.25], [1], [1], [1], [1]])
  })

  test('count by the timesteps where those are given', async () => {
    const adapters = [apply(slow, { weight: 0.25, end: 0.4 }), apply(fast, { start: 0.4 })]
    const { scales, calls } = await draw({ steps: 20, timesteps: [999, 900, 700, 400, 100], adapters })
    expect(scales).toEqual([[0.25], [0.25], [1], [1], [1]])
    const timesteps = calls.flatMap(({ inputs }) => (inputs.timestep ? [Math.round(inputs.timestep.data[0])] : []))
    expect(timesteps).toEqual([999, 900, 700, 400, 100])
  })

  test('in both passes of guidance are the same, and an adapter that adds up to nothing is not there', async () => {
    const adapters = [apply(ink, { weight: 0.6 }), apply(wash, { weight: 0.5 }), apply(wash, { weight: -0.5 })]
    const { calls } = await draw({ steps: 1, guidanceScale: 4, adapters })
    const { inputs } = calls.find(({ network }) => network === 'unet')!
    expect(inputs.sample.shape[0]).toBe(2)
    expect(inputs['a.scale']).toEqual({ data: Float32Array.of(0.6), shape: [1, 1] })
    const mixed = await draw({ steps: 1, guidanceScale: 4, adapters }, { slots: slots(true) })
    expect(mixed.calls.find(({ network }) => network === 'unet')?.inputs['a.scale'].shape).toEqual([2, 1])
  })

  test('that come or go end what is remembered of whole runs', async () => {
    const has = () => true
    const job = { steps: 10, speed: 'fastest', adapters: [apply(ink)] } as const
    const pattern = ({ runs }: { runs: string[] }) =>
      runs.flatMap((name) => (name === 'unet' ? 'F' : name === 'unet_shallow' ? '.' : [])).join('')
    expect(pattern(await draw(job, undefined, { has }))).toBe('FFF...F..F')
    const changed = { ...job, adapters: [apply(slow, { end: 0.5 }), apply(fast, { start: 0.5 })] }
    expect(pattern(await draw(changed, undefined, { has }))).toBe('FFF..FFF.F')
  })
})

describe('the text encoder', () => {
  test('is fed the text weights, once for each text and weight', async () => {
    const texts = createTextCache()
    const at = async (textWeight: number) =>
      draw({ steps: 1, adapters: [apply(written, { weight: 0, textWeight })] }, undefined, { texts })
    const first = await at(0.5)
    expect(first.runs.filter((name) => name === 'text_encoder')).toHaveLength(1)
    expect([...first.calls[0].inputs['a.scale'].data]).toEqual([0.5, 0.5])
    expect((await at(0.5)).runs).not.toContain('text_encoder')
    expect((await at(0.6)).runs).toContain('text_encoder')
    expect((await at(0)).runs).toContain('text_encoder') // the text without it was not read yet
    expect((await at(0.6)).runs).not.toContain('text_encoder')
    // The same file cut to another rank is another text.
    const cut = { ...written, layers: loraOf('written', layers, { a: 1 }, 'text_encoder').layers }
    const less = [apply(cut, { weight: 0, textWeight: 0.6 })]
    expect((await draw({ steps: 1, adapters: less }, undefined, { texts })).runs).toContain('text_encoder')
    // An adapter of the drawing network alone leaves the text as it was read.
    const other = await draw({ steps: 1, adapters: [apply(ink)] }, undefined, { texts })
    expect(other.runs).not.toContain('text_encoder')
  })

  test('must have slots where it is changed', async () => {
    await expect(draw({ adapters: [apply(written)] }, {})).rejects.toThrow('no slots')
    await expect(draw({ adapters: [apply(ink)] }, {})).rejects.toThrow('no slots')
    const idle = [apply(written, { textWeight: 0 }), apply(ink, { weight: 0 })]
    const { calls } = await draw({ steps: 1, adapters: idle }, {})
    expect(calls.flatMap(({ inputs }) => Object.keys(inputs)).filter((name) => name.includes('scale'))).toEqual([])
  })
})

describe('a batch', () => {
  const pictures = [
    { prompt: 'a fox', adapters: [apply(ink, { weight: 0.5 })] },
    { prompt: 'a barn', guidanceScale: 1, adapters: [apply(wash), apply(ink)] },
    { prompt: 'a cat, '.repeat(40), negativePrompt: 'rain', seed: 3, adapters: [] },
  ]

  test('runs rows of equally long text together, each with its own adapters', async () => {
    const { calls } = await draw({ steps: 1, guidanceScale: 4 }, { pictures, slots: slots(true) })
    const drawn = calls.filter(({ network }) => network === 'unet').map(({ inputs }) => inputs)
    // Negative of the fox, fox, barn; then both of the cat, whose prompt is two chunks long.
    expect(drawn.map(({ sample }) => sample.shape[0])).toEqual([3, 2])
    expect(drawn.map(({ encoder_hidden_states: text }) => text.shape[1])).toEqual([77, 154])
    expect([...drawn[0]['a.scale'].data]).toEqual([0.5, 0, 0.5, 0, 1, 1])
    expect(drawn[0]['a.scale'].shape).toEqual([3, 2])
    expect([...drawn[1]['a.scale'].data]).toEqual([0, 0])
  })

  test('runs each row by itself where networks take only one', async () => {
    const { calls } = await draw({ steps: 1, guidanceScale: 4 }, { pictures, slots: slots() }, { singleRows: true })
    const drawn = calls.filter(({ network }) => network === 'unet').map(({ inputs }) => inputs)
    expect(drawn.map((inputs) => [...inputs['a.scale'].data])).toEqual([[0.5], [0.5], [1, 1], [0], [0]])
  })
})

test('rows whose weights of the network differ are not in one run', async () => {
  const norm = { ...ink, sha256: 'norm', live: { unet: new Map([['n', {} as never]]) } }
  const fed: number[] = []
  const weights: LiveWeights = {
    paths: () => new Set(['n']),
    async inputs(_target, _paths, own) {
      fed.push(own.get(norm) ?? 0)
      return {}
    },
  }
  const live = { paths: new Set(['n']), weights }
  const slots = { unet: createSlots('unet', layers, { isMixed: true, live }) }
  const pictures = [
    { adapters: [apply(norm, { end: 0.5 })] },
    { adapters: [apply(norm)] },
    { adapters: [apply(norm, { end: 0.5 })] },
    {},
  ]
  const { calls } = await draw({ steps: 2, guidanceScale: 4 }, { pictures, slots })
  const rows = calls.flatMap(({ network, inputs }) => (network === 'unet' ? [inputs.sample.shape[0]] : []))
  expect(rows).toEqual([4, 2, 2, 4, 2, 2])
  expect(fed).toEqual([1, 1, 0, 0, 1, 0])
})

describe('distilled guidance', () => {
  const guidance: LoadedGuidance = {
    name: 'one pass',
    sha256: 'g',
    width: 4,
    guidanceRange: [1, 8],
    inputs: { 'guidance.text': { data: new Float32Array(24), shape: [4, 6] } },
    tokenOf: (scale) => Float32Array.of(scale, 0, 0, 0),
  }

  test('takes one evaluation a step, with the scale as a token', async () => {
    const job = { steps: 3, guidanceScale: 6, guidanceAdapter: guidance }
    const { calls, notices } = await draw(job, {})
    const drawn = calls.filter(({ network }) => network === 'unet').map(({ inputs }) => inputs)
    expect(drawn).toHaveLength(3)
    for (const inputs of drawn) {
      expect(inputs.sample.shape[0]).toBe(1)
      expect(inputs['guidance.token']).toEqual({ data: Float32Array.of(6, 0, 0, 0), shape: [1, 1, 4] })
      expect(inputs['guidance.text']).toBe(guidance.inputs['guidance.text'])
    }
    const { data, shape } = drawn[0]['guidance.positions']
    expect(shape).toEqual([79, 4])
    expect(drawn[1]['guidance.positions']).toBe(drawn[0]['guidance.positions'])
    // sin 3, sin 0.03, cos 3, cos 0.03
    expect([...data.slice(12, 16)].map((value) => value.toFixed(5))).toEqual([
      '0.14112',
      '0.03000',
      '-0.98999',
      '0.99955',
    ])
    expect(notices).toEqual([])
  })

  test('gives each picture of a batch its own scale, and says what has no effect and what was out of range', async () => {
    const pictures = [{ guidanceScale: 3 }, { guidanceScale: 12, negativePrompt: 'rain' }]
    const job = { steps: 1, guidanceRescale: 0.7, guidanceAdapter: guidance }
    const { calls, notices } = await draw(job, { pictures })
    const { inputs } = calls.find(({ network }) => network === 'unet')!
    expect(inputs['guidance.token']).toEqual({ data: Float32Array.of(3, 0, 0, 0, 8, 0, 0, 0), shape: [2, 1, 4] })
    expect(notices).toHaveLength(3)
    expect(notices[0]).toBe('"one pass" was trained for guidance 1 to 8: 12 became 8.')
    expect(notices[1]).toMatch(/^The negative prompt has no effect with "one pass"/)
    expect(notices[2]).toMatch(/^Guidance rescale has no effect/)
  })
})
