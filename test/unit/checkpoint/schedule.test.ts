import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { defaultsFor, scheduleOfConfig, scheduleOfFile } from '../../../models/checkpoint/schedule.ts'
import { modelHome, vignetteHome } from '../../../models/home.ts'
import { samplerNames, scheduleNames } from '../../../preload/limits.ts'

const none = new Map<string, never>()

describe('the noise schedule', () => {
  it('of a single file is that of Stable Diffusion; only SD 2 leaves open what it predicts', () => {
    expect(scheduleOfFile('sd15', none, new Map())).toMatchObject({
      isCertain: true,
      schedule: { predictionType: 'epsilon', betaStart: 0.00085, betaEnd: 0.012 },
    })
    expect(scheduleOfFile('sdxl', none, new Map())).toMatchObject({
      isCertain: true,
      schedule: { predictionType: 'epsilon' },
    })
    expect(scheduleOfFile('sd2', none, new Map())).toMatchObject({
      isCertain: false,
      schedule: { predictionType: 'v_prediction' },
    })
    expect(scheduleOfFile('sd2', none, new Map([['modelspec.prediction_type', 'epsilon']]))).toMatchObject({
      isCertain: true,
      schedule: { predictionType: 'epsilon' },
    })
  })
  it('of a folder is what its configuration says', () => {
    const { schedule } = scheduleOfConfig('x', {
      beta_start: 0.001,
      beta_end: 0.02,
      beta_schedule: 'linear',
      num_train_timesteps: 500,
      prediction_type: 'v_prediction',
      rescale_betas_zero_snr: true,
    })
    expect(schedule).toEqual({
      betaStart: 0.001,
      betaEnd: 0.02,
      betaSchedule: 'linear',
      trainTimesteps: 500,
      predictionType: 'v_prediction',
      zeroTerminalSnr: true,
    })
    expect(scheduleOfConfig('x', undefined).isCertain).toBe(false)
  })
  it.each([{ beta_schedule: 'squaredcos_cap_v2' }, { prediction_type: 'sample' }, { trained_betas: [0.1] }])(
    'that cannot be run is refused: %o',
    (json) => {
      expect(() => scheduleOfConfig('x', json)).toThrowError(
        expect.objectContaining({
          code: 'checkpoint-unsupported',
          message: expect.stringContaining(Object.keys(json)[0]),
        }),
      )
    },
  )
})

describe('defaults', () => {
  it('take few steps and no guidance for models that are made for it', () => {
    expect(defaultsFor('x', { _class_name: 'LCMScheduler' }, false)).toMatchObject({ sampler: 'lcm', guidanceScale: 1 })
    expect(
      defaultsFor('x', { _class_name: 'EulerAncestralDiscreteScheduler', timestep_spacing: 'trailing' }, false),
    ).toMatchObject({ sampler: 'euler_a', steps: 4, guidanceScale: 1 })
    expect(defaultsFor('sd_xl_turbo_1.0_fp16.safetensors', undefined, false)).toMatchObject({
      steps: 4,
      guidanceScale: 1,
    })
    expect(defaultsFor('DreamShaperXL_Lightning.safetensors', undefined, false)).toMatchObject({
      steps: 6,
      sampler: 'euler',
    })
  })
  it('are the usual ones for all others, and always exist', () => {
    const usual = defaultsFor('turbocharged-lcmx.safetensors', undefined, false)
    expect(usual).toMatchObject({ steps: 25, guidanceScale: 7 })
    for (const { sampler, schedule } of [
      usual,
      defaultsFor('lcm', undefined, false),
      defaultsFor('x', { _class_name: 'DDIMScheduler', timestep_spacing: 'trailing' }, true),
    ]) {
      expect(samplerNames).toContain(sampler)
      expect(scheduleNames).toContain(schedule)
    }
  })
})

describe('the home of models', () => {
  it('follows the platform, and an environment variable before it', () => {
    expect(vignetteHome({ VIGNETTE_HOME: '/data/v' }, 'linux')).toBe('/data/v')
    expect(vignetteHome({ XDG_DATA_HOME: '/xdg' }, 'linux')).toBe(join('/xdg', 'vignette'))
    expect(vignetteHome({}, 'linux')).toMatch(/\.local.share.vignette$/)
    expect(vignetteHome({}, 'darwin')).toMatch(/Library.Application Support.Vignette$/)
    expect(vignetteHome({ APPDATA: 'C:/Users/x/AppData/Roaming' }, 'win32')).toBe(
      join('C:/Users/x/AppData/Roaming', 'Vignette'),
    )
    expect(modelHome({ VIGNETTE_HOME: '/data/v' }, 'linux')).toBe(join('/data/v', 'models'))
  })
})
