import { beforeAll, describe, expect, test } from 'vitest'
import { generate, type GenerateOptions } from '../../../main/pipeline/generate.ts'
import { createSlots } from '../../../main/pipeline/slots.ts'
import { createTokenizer, type Tokenizer } from '../../../main/pipeline/tokenizer.ts'
import type { GenerateEvent, GenerateJob } from '../../../main/pipeline/types.ts'
import { readClipMerges } from '../../../models/tokenizer/load.ts'
import { samplerNames } from '../../../preload/limits.ts'
import { apply, loraOf } from './fake-adapters.ts'
import { gaussianNetworks, smallJob } from './gaussian-networks.ts'

let tokenizer: Tokenizer
beforeAll(async () => {
  tokenizer = createTokenizer(await readClipMerges())
})

const layers = [{ path: 'a', inputs: 4, outputs: 3, isConv: false }]
const picture = { data: Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => (i * 37) % 256), width: 64, height: 64 }
const mask = Uint8Array.from({ length: 64 * 64 }, (_, i) => (i % 64 > 31 ? 255 : 0))

async function draw(job: GenerateJob, memory: GenerateOptions['memory'], options: GenerateOptions = {}) {
  const networks = gaussianNetworks()
  const events: GenerateEvent[] = []
  for await (const event of generate(job, networks, tokenizer, { ...options, memory })) events.push(event)
  const images = events.flatMap((event) => (event.type === 'image' ? [Buffer.from(event.image.data)] : []))
  const steps = events.flatMap((event) => ('step' in event ? [`${event.type} ${event.step}`] : []))
  return { images, steps, evaluations: networks.calls.unet?.runs ?? 0 }
}

/** Draws once and remembers, then from every number of remembered estimates on. */
async function resumeEverywhere(job: GenerateJob, options: GenerateOptions = {}) {
  const recorded: Float32Array[] = []
  const whole = await draw(job, { recorded: [], onDenoised: (one) => void recorded.push(one.slice()) }, options)
  expect(recorded.length).toBe(whole.evaluations)
  for (let count = 0; count <= recorded.length; count++) {
    const again = await draw(job, { recorded: recorded.slice(0, count) }, options)
    expect(again.images, `${job.sampler} after ${count}`).toEqual(whole.images)
    expect(again.evaluations).toBe(whole.evaluations - count)
  }
}

describe('a picture that is gone on with equals the uninterrupted one to the byte', () => {
  test.each(samplerNames)('with %s', (sampler) => resumeEverywhere(smallJob({ sampler, steps: 5 })))

  test.each(samplerNames)('with %s, a start picture and a mask', (sampler) =>
    resumeEverywhere(smallJob({ sampler, steps: 6, init: { image: picture, strength: 0.7 }, mask })),
  )

  test('with adapters whose weights change on the way', async () => {
    const ink = loraOf('ink', layers, { a: 1 })
    const adapters = [apply(ink, { ramp: 'ease-in' }), apply(loraOf('wash', layers, { a: 2 }), { start: 0.5 })]
    const job = smallJob({ steps: 6, sampler: 'heun', adapters })
    await resumeEverywhere(job, { slots: { unet: createSlots('unet', layers, { isMixed: false }) } })
  })

  test('with several pictures drawn together', () =>
    resumeEverywhere(smallJob({ sampler: 'dpmpp_3m_sde' }), { pictures: [{ seed: 1 }, { seed: 2 }] }))
})

test('steps that are remembered are one event', async () => {
  const recorded: Float32Array[] = []
  const job = smallJob({ steps: 4 })
  await draw(job, { recorded: [], onDenoised: (one) => void recorded.push(one) })
  const { steps } = await draw(job, { recorded: recorded.slice(0, 2) })
  expect(steps).toEqual(['resumed 2', 'step 3', 'step 4'])
  expect((await draw(job, { recorded })).steps).toEqual(['resumed 4'])
})

test('where deep features are reused, everything is computed', async () => {
  const recorded: Float32Array[] = []
  const inner = gaussianNetworks()
  const networks = {
    ...inner,
    has: () => true,
    run: async (...[network, inputs, outputs]: Parameters<typeof inner.run>) => ({
      ...(await inner.run(network === 'unet_shallow' ? 'unet' : network, inputs, outputs)),
      deep: { data: Float32Array.of(1), shape: [1, 1] },
    }),
  }
  const memory = { recorded: [new Float32Array(256)], onDenoised: (one: Float32Array) => void recorded.push(one) }
  const events = []
  for await (const event of generate(smallJob({ speed: 'faster' }), networks, tokenizer, { memory })) events.push(event)
  expect(events.filter(({ type }) => type === 'resumed')).toEqual([])
  expect(inner.calls.unet?.runs).toBe(8)
})
