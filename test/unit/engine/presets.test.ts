import { describe, expect, test } from 'vitest'
import { fillBatch, fillFromAdapters } from '../../../main/engine/presets.ts'
import { checkRequest, fillDefaults } from '../../../main/engine/request.ts'
import type { BatchPicture } from '../../../main/engine/protocol.ts'
import type { AdapterInfo, SpeedPreset } from '../../../models/adapters/types.ts'
import { sdNoiseSchedule } from '../../../models/family.ts'
import type { ModelManifest } from '../../../models/manifest.ts'

const manifest: ModelManifest = {
  version: 1,
  id: 'starter',
  name: 'Starter',
  family: 'sd15',
  schedule: sdNoiseSchedule,
  latents: { channels: 4, scale: 0.18215, shift: 0, spatialFactor: 8 },
  textEncoders: [{ width: 8, layers: 2, padTokenId: 49407 }],
  nativeSize: { width: 256, height: 256 },
  storage: 'fp16',
  networks: ['text_encoder', 'unet', 'vae_decoder'],
  defaults: { steps: 20, guidanceScale: 7, sampler: 'dpmpp_2m', schedule: 'karras' },
  source: { file: 'x', sha256: '0', bytes: 1 },
  weightBytes: 1,
}

const infoOf = (name: string, changes: Partial<AdapterInfo> = {}): AdapterInfo => ({
  file: `/adapters/${name}.safetensors`,
  name,
  bytes: 1,
  kinds: ['LoRA'],
  precision: 'fp16',
  matched: 10,
  total: 10,
  hasTextEncoder: false,
  triggers: [],
  tags: [],
  role: 'style',
  verdict: { fit: 'fits', message: 'Fits.' },
  notices: [],
  ...changes,
})
const speed = (name: string, preset: Partial<SpeedPreset>, role: AdapterInfo['role'] = 'speed') =>
  infoOf(name, { role, preset: { name, sampler: 'euler', steps: 4, guidanceScale: 1, ...preset } })

const lcm = speed('LCM', { sampler: 'lcm', stepRange: [2, 8], timesteps: [999, 759, 499, 259] })
const lightning = speed('Lightning', { schedule: 'trailing' })
const tcd = speed('TCD', { sampler: 'tcd', eta: 0.2 })
const dmd = speed('DMD2', { sampler: 'lcm', guidanceScale: 0, timesteps: [999, 749, 499, 249] })
const grid = [999, 979, 958, 935, 911, 887, 745, 563, 320, 20]
const slow = speed('slow', { steps: 10, guidanceScale: 5, timesteps: grid, activeSteps: [0, 5] }, 'speed-slow')
const fast = speed('fast', { steps: 10, guidanceScale: 5, timesteps: grid, activeSteps: [5, 10] }, 'speed-fast')

function fill(infos: AdapterInfo[], { uses = [], ...rest }: { uses?: object[]; [key: string]: unknown } = {}) {
  const adapters = infos.map(({ file }, i) => ({ file, ...uses[i] }))
  return fillFromAdapters(checkRequest({ prompt: 'a barn', ...rest, adapters }), manifest, infos)
}
/** All the way to what is drawn. */
function drawn(infos: AdapterInfo[], changes: Parameters<typeof fill>[1] = {}) {
  const { request, notices } = fill(infos, changes)
  const { sampler, schedule, steps, guidanceScale, timesteps, eta, adapters } = fillDefaults(request, manifest, 1)
  const windows = adapters.map(({ start, end }) => [start, end])
  return { sampler, schedule, steps, guidanceScale, timesteps, eta, windows, notices }
}
const refusal = (action: () => unknown) => {
  try {
    action()
  } catch (error) {
    return error as { code: string; message: string; hint?: string }
  }
  throw new Error('was not refused')
}

describe('weights', () => {
  test('are what was asked, else what the file prefers, else by what it is for', () => {
    const infos = [infoOf('a'), infoOf('b', { preferredWeight: 0.6 }), infoOf('c', { role: 'watermark' }), infoOf('d')]
    const { adapters } = fill(infos, { uses: [{}, {}, { textWeight: 0.2 }, { weight: -1.5 }] }).request
    expect(adapters.map(({ weight, textWeight }) => [weight, textWeight])).toEqual([
      [0.8, 0.8],
      [0.6, 0.6],
      [1, 0.2],
      [-1.5, -1.5],
    ])
  })
})

describe('a preset', () => {
  test('fills what was left open and says so', () => {
    expect(drawn([lcm])).toMatchObject({ sampler: 'lcm', steps: 4, guidanceScale: 1, timesteps: [999, 759, 499, 259] })
    expect(drawn([lcm]).notices).toEqual(['"LCM" sets sampler lcm, 4 steps, noise levels of its own, guidance 1.'])
    expect(drawn([lightning])).toMatchObject({ sampler: 'euler', schedule: 'trailing', steps: 4, guidanceScale: 1 })
    expect(drawn([lightning]).timesteps).toBeUndefined()
    expect(drawn([tcd])).toMatchObject({ sampler: 'tcd', eta: 0.2, timesteps: [999, 759, 499, 259] })
    expect(drawn([dmd])).toMatchObject({ sampler: 'lcm', guidanceScale: 1, timesteps: [999, 749, 499, 249] })
  })

  test('leaves what was asked for, and says where that is not what it is made for', () => {
    const asked = drawn([lcm], { sampler: 'euler', steps: 20, guidanceScale: 7, schedule: 'karras' })
    expect(asked).toMatchObject({ sampler: 'euler', steps: 20, guidanceScale: 7, schedule: 'karras' })
    expect(asked.timesteps).toBeUndefined()
    expect(asked.notices).toEqual([
      '"LCM" is made for the sampler lcm; this is euler.',
      '"LCM" is made for 2 to 8 steps; this is 20.',
      '"LCM" is made for noise levels of its own; this is karras.',
      '"LCM" is made for guidance 1; this is 7.',
    ])
    const six = drawn([lcm], { steps: 6 })
    expect(six.timesteps).toEqual([999, 839, 679, 499, 339, 179])
    expect(six.notices).toEqual(['"LCM" sets sampler lcm, noise levels of its own, guidance 1.'])
    expect(drawn([dmd], { steps: 8 })).toMatchObject({ steps: 8, timesteps: undefined })
    expect(drawn([lightning], { schedule: 'karras' }).notices).toContain(
      '"Lightning" is made for the schedule trailing; this is karras.',
    )
  })

  test('with noise levels that the model has not is followed without them', () => {
    for (const timesteps of [
      [999, 749, 499, -1],
      [5000, 3, 2, 1],
    ]) {
      expect(drawn([speed('odd', { timesteps })])).toMatchObject({ steps: 4, timesteps: undefined })
    }
    expect(drawn([speed('odd', { sampler: 'tcd', eta: 7 })]).eta).toBe(1)
  })

  test('of an adapter that was muted has no say', () => {
    expect(drawn([lcm], { uses: [{ weight: 0 }] })).toMatchObject({ sampler: 'dpmpp_2m', steps: 20, notices: [] })
    expect(drawn([lcm, lightning], { uses: [{}, { weight: 0 }] })).toMatchObject({ sampler: 'lcm' })
  })

  test('filled in once changes nothing and warns of nothing when it comes back with a recipe', () => {
    for (const infos of [[lcm], [lightning], [tcd], [dmd], [slow, fast]]) {
      const once = fillDefaults(fill(infos).request, manifest, 1)
      const again = fillFromAdapters(checkRequest(once), manifest, infos)
      expect(again).toEqual({ request: once, notices: [] })
    }
  })

  test('contradicted by another is refused, with both named; the same twice is not', () => {
    const { code, message, hint } = refusal(() => fill([lcm, lightning]))
    expect(code).toBe('bad-request')
    expect(message).toBe(
      '"LCM" is made for LCM (sampler lcm, 4 steps, guidance 1), and "Lightning" is made for Lightning (sampler euler, 4 steps, guidance 1); a picture can be drawn in one way only.',
    )
    expect(hint).toContain('weight of the other to 0')
    for (const wrong of [
      [slow, lcm],
      [slow, fast, lcm],
      [lcm, tcd],
    ])
      expect(refusal(() => fill(wrong)).code).toBe('bad-request')
    expect(drawn([lcm, { ...lcm, name: 'copy' }])).toMatchObject({ sampler: 'lcm', steps: 4 })
  })
})

describe('a slow and a fast phase', () => {
  test('draw at the noise levels of both, each at its own, in whatever order they were chosen', () => {
    expect(drawn([slow, fast]).notices).toEqual([
      '"slow" and "fast" set sampler euler, 10 steps, noise levels of their own, guidance 5.',
    ])
    expect(drawn([slow, fast])).toMatchObject({
      timesteps: grid,
      steps: 10,
      guidanceScale: 5,
      windows: [
        [0, 0.5],
        [0.5, 1],
      ],
    })
    expect(drawn([infoOf('ink'), fast, slow])).toMatchObject({
      timesteps: grid,
      windows: [
        [0, 1],
        [0.5, 1],
        [0, 0.5],
      ],
    })
    // Files that list only their own part.
    const halves = [slow, fast].map((info, i) => ({
      ...info,
      preset: { ...info.preset!, steps: 5, timesteps: grid.slice(5 * i, 5 * i + 5), activeSteps: undefined },
    }))
    expect(drawn(halves)).toMatchObject({
      timesteps: grid,
      steps: 10,
      windows: [
        [0, 0.5],
        [0.5, 1],
      ],
    })
  })

  test('may follow a schedule instead', () => {
    const preset = { timesteps: undefined, schedule: 'trailing', steps: 8 }
    const pair = [
      { ...slow, preset: { ...slow.preset!, ...preset, activeSteps: [0, 3] as const } },
      { ...fast, preset: { ...fast.preset!, ...preset, activeSteps: [3, 8] as const } },
    ]
    expect(drawn(pair)).toMatchObject({
      schedule: 'trailing',
      steps: 8,
      windows: [
        [0, 0.375],
        [0.375, 1],
      ],
    })
  })

  test('one without the other says so', () => {
    const alone = drawn([slow])
    expect(alone).toMatchObject({ timesteps: grid, windows: [[0, 0.5]] })
    expect(alone.notices[0]).toBe(
      '"slow" is one of a pair; without the fast one the other steps are drawn as the model draws them.',
    )
  })

  test('that mix are refused; a window that was moved stays', () => {
    const mixed = { ...slow, preset: { ...slow.preset!, activeSteps: [0, 7] as const } }
    expect(
      refusal(() => fill([mixed, { ...fast, preset: { ...fast.preset!, activeSteps: [3, 10] as const } }])).code,
    ).toBe('bad-request')
    expect(drawn([slow, fast], { uses: [{ end: 0.3 }, {}] }).windows).toEqual([
      [0, 0.3],
      [0.5, 1],
    ])
  })
})

test('adapters that do not fit are refused with their verdict; those that fit partly say what is left out', () => {
  const verdict = {
    fit: 'wrong-family',
    message: 'Made for SDXL; this model is SD 1.5.',
    hint: 'Pick another.',
  } as const
  expect(refusal(() => fill([infoOf('xl', { verdict })]))).toMatchObject({
    code: 'adapter-mismatch',
    message: verdict.message,
    hint: verdict.hint,
  })
  expect(fill([infoOf('xl', { verdict })], { uses: [{ weight: 0, textWeight: 0 }] }).notices).toEqual([])
  const partly = infoOf('p', { verdict: { fit: 'partly', message: '8 of 10 fit.' }, notices: ['No alpha.'] })
  expect(fill([partly]).notices).toEqual(['8 of 10 fit.', 'No alpha.'])
})

test('two adapters that stand in for guidance are refused, two watermarks are told', () => {
  const one = infoOf('one', { role: 'guidance' })
  expect(refusal(() => fill([one, infoOf('two', { role: 'guidance' })])).message).toBe(
    '"one" and "two" both stand in for guidance.',
  )
  expect(drawn([one, lcm])).toMatchObject({ sampler: 'lcm' })
  const marks = [infoOf('m', { role: 'watermark' }), infoOf('n', { role: 'watermark' })]
  expect(fill(marks).notices[0]).toContain('"m" and "n"')
})

describe('a batch', () => {
  const all = new Map(
    [infoOf('ink'), lcm, lightning, infoOf('agd', { role: 'guidance' })].map((info) => [info.file, info]),
  )
  const use = (name: string) => ({ file: `/adapters/${name}.safetensors`, start: 0, end: 1, ramp: 'flat' as const })
  const fillAll = (pictures: BatchPicture[], changes: object = {}) =>
    fillBatch(checkRequest({ prompt: 'a barn', ...changes }), pictures, manifest, (adapters) =>
      adapters.map(({ file }) => all.get(file)!),
    )

  test('gives every picture its weights and all of them the same steps', () => {
    const { request, batch, notices } = fillAll([
      { prompt: 'a', adapters: [use('LCM'), use('ink')] },
      { prompt: 'b', seed: 3, guidanceScale: 1.5, adapters: [use('LCM')] },
    ])
    expect(request).toMatchObject({ sampler: 'lcm', steps: 4, timesteps: [999, 759, 499, 259] })
    expect(batch[0]).toMatchObject({ prompt: 'a', guidanceScale: 1 })
    expect(batch[0].adapters?.map(({ weight }) => weight)).toEqual([1, 0.8])
    expect(batch[1]).toMatchObject({ prompt: 'b', seed: 3, guidanceScale: 1.5 })
    expect(notices).toContain('"LCM" is made for guidance 1; this is 1.5.')
  })

  test('without adapters is left as it is, and pictures without a list of their own have the request’s', () => {
    expect(fillAll([{ prompt: 'a' }, { prompt: 'b' }])).toEqual({
      request: checkRequest({ prompt: 'a barn' }),
      batch: [
        { prompt: 'a', adapters: [] },
        { prompt: 'b', adapters: [] },
      ],
      notices: [],
    })
    const { batch } = fillAll([{ prompt: 'a' }, { prompt: 'b', adapters: [] }], { adapters: [use('ink')] })
    expect(batch.map(({ adapters }) => adapters?.length)).toEqual([1, 0])
  })

  test('is refused where the steps or the kind of guidance would differ', () => {
    expect(refusal(() => fillAll([{ adapters: [use('ink')] }, { adapters: [use('LCM')] }])).message).toContain(
      'picture 2',
    )
    expect(refusal(() => fillAll([{ adapters: [use('LCM')] }, { adapters: [use('Lightning')] }])).code).toBe(
      'bad-request',
    )
    expect(refusal(() => fillAll([{ adapters: [use('agd')] }, { adapters: [] }])).message).toContain(
      'stands in for guidance',
    )
    const steps = { sampler: 'lcm', steps: 4, schedule: 'sgm_uniform' }
    expect(fillAll([{ adapters: [use('ink')] }, { adapters: [use('LCM')] }], steps).request).toMatchObject(steps)
  })
})
