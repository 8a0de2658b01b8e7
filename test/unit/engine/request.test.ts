import { describe, expect, test } from 'vitest'
import { checkAgainstModel, checkRequest, fillDefaults } from '../../../main/engine/request.ts'
import { sdNoiseSchedule } from '../../../models/family.ts'
import type { ModelManifest } from '../../../models/manifest.ts'

const manifest: ModelManifest = {
  version: 1,
  id: 'starter',
  name: 'Starter',
  family: 'sd15',
  schedule: sdNoiseSchedule,
  latents: { channels: 4, scale: 0.18215, shift: 0, spatialFactor: 16 },
  textEncoders: [{ width: 8, layers: 2, padTokenId: 49407 }],
  nativeSize: { width: 256, height: 192 },
  storage: 'fp16',
  networks: ['text_encoder', 'unet', 'vae_decoder'],
  defaults: { steps: 12, guidanceScale: 4, sampler: 'dpmpp_2m', schedule: 'karras' },
  source: { file: 'x', sha256: '0', bytes: 1 },
  weightBytes: 1,
}

const refusal = (raw: unknown) => {
  try {
    checkRequest(raw)
  } catch (error) {
    return error as { code: string; message: string; hint?: string }
  }
  throw new Error('was not refused')
}

describe('checkRequest', () => {
  test.each([
    [{ width: 500 }, 'Expected width to be a multiple of 8, got 500.', 'Try 496 or 504.'],
    [{ height: 2047 }, 'Expected height to be a multiple of 8, got 2047.', 'Try 2040 or 2048.'],
    [{ width: 8 }, 'Expected width to be at least 64, got 8.', 'Try 64.'],
    [{ width: 4096 }, 'Expected width to be at most 2,048, got 4096.', 'Try 2048.'],
    [
      { prompt: 'x'.repeat(10_000) },
      'Expected the prompt to have at most 4,000 characters, got 10,000.',
      'Shorten it.',
    ],
    [
      { negativePrompt: 'x'.repeat(4001) },
      'Expected the negative prompt to have at most 4,000 characters, got 4,001.',
      'Shorten it.',
    ],
    [{ prompt: ' \n ' }, 'The prompt is empty.', 'Say in a few words what to draw.'],
    [{ steps: 0 }, 'Expected steps to be at least 1, got 0.', 'Try 1.'],
    [{ steps: 2.5 }, 'Expected steps to be a whole number, got 2.5.', undefined],
    [{ steps: Number.NaN }, 'Expected steps to be a number, got NaN.', undefined],
    [{ seed: -1 }, 'Expected seed to be at least 0, got -1.', 'Try 0.'],
    [{ guidanceScale: 31 }, 'Expected guidance scale to be at most 30, got 31.', 'Try 30.'],
    [{ maskImage: 'mask.png' }, 'A mask needs a picture to change.', 'Give the picture to start from as well.'],
    [{ prompt: undefined }, 'The prompt is missing.', undefined],
    [
      { adapters: [{ file: 'a' }, { file: 'b', weight: 9 }] },
      'Expected weight of adapter 2 to be at most 4, got 9.',
      'Try 4.',
    ],
    [
      { adapters: [{ file: 'a', textWeight: 'x' }] },
      'Expected text weight of adapter 1 to be a number, got "x".',
      undefined,
    ],
    [
      { adapters: [{ file: 'a', start: 0.6, end: 0.4 }] },
      'Adapter 1 starts at 0.6 and ends at 0.4.',
      'Let it end after it starts; both are shares of the steps, 0 to 1.',
    ],
    [
      { steps: 5, timesteps: [999, 500] },
      'Expected 2 steps, one for each noise level, got 5.',
      'Leave out the steps, or the noise levels.',
    ],
    [{ prompt: 3 }, 'Expected the prompt to be text, got 3.', undefined],
  ])('refuses %j in words', (part, message, hint) => {
    expect(refusal({ prompt: 'a barn', ...part })).toMatchObject({ code: 'bad-request', message, hint })
  })

  test('lists the samplers when one is unknown', () => {
    const { message, hint } = refusal({ prompt: 'a', sampler: 'eulr' })
    expect(message).toBe('There is no sampler "eulr".')
    expect(hint).toContain('euler_a, ddim')
  })

  test('refuses what is no object at all', () => {
    for (const raw of [null, undefined, 'a barn', 3]) expect(refusal(raw).code).toBe('bad-request')
  })
})

describe('fillDefaults', () => {
  test('takes from the model what was left open and nothing else', () => {
    const asked = checkRequest({ prompt: 'a', width: 320, steps: 3 })
    expect(fillDefaults(asked, manifest, 99)).toEqual({
      ...asked,
      width: 320,
      height: 192,
      steps: 3,
      seed: 99,
      sampler: 'dpmpp_2m',
      schedule: 'karras',
      guidanceScale: 4,
    })
  })

  test('keeps a seed of 0, and otherwise draws one within the limits', () => {
    expect(fillDefaults(checkRequest({ prompt: 'a', seed: 0 }), manifest).seed).toBe(0)
    const seeds = Array.from({ length: 50 }, () => fillDefaults(checkRequest({ prompt: 'a' }), manifest).seed)
    expect(new Set(seeds).size).toBeGreaterThan(45)
    for (const seed of seeds) expect(checkRequest({ prompt: 'a', seed }).seed).toBe(seed)
  })

  test('survives a model whose defaults this version does not know', () => {
    const odd = { ...manifest, defaults: { ...manifest.defaults, sampler: 'later', schedule: 'later' } }
    expect(fillDefaults(checkRequest({ prompt: 'a' }), odd)).toMatchObject({ sampler: 'euler', schedule: 'normal' })
  })
})

test('checkAgainstModel wants whole blocks of the model', () => {
  const filled = fillDefaults(checkRequest({ prompt: 'a', width: 264 }), manifest)
  expect(() => checkAgainstModel(filled, manifest)).toThrow('Expected width to be a multiple of 16, got 264.')
  expect(() => checkAgainstModel({ ...filled, width: 272 }, manifest)).not.toThrow()
})
