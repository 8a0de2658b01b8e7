import { describe, expect, it } from 'vitest'
import { describe as describeFile } from '../../../models/adapters/metadata.ts'
import { lcmTimesteps, presetFor, speedNotice } from '../../../models/adapters/presets.ts'
import type { AdapterInfo } from '../../../models/adapters/types.ts'

describe('adapters for few steps', () => {
  it.each([
    ['lcm-lora-sdxl', { name: 'LCM', sampler: 'lcm', steps: 4, stepRange: [2, 8], timesteps: [999, 759, 499, 259] }],
    ['SDXL-TCD-LoRA', { name: 'TCD', sampler: 'tcd', eta: 0.3, timesteps: [999, 759, 499, 259] }],
    ['sdxl_lightning_2step_lora', { steps: 2, sampler: 'euler', timesteps: [999, 499] }],
    ['sdxl_lightning_8step_lora', { steps: 8, timesteps: [999, 874, 749, 624, 499, 374, 249, 124] }],
    ['Hyper-SDXL-4steps-lora', { steps: 4, sampler: 'ddim', guidanceScale: 1, timesteps: [999, 749, 499, 249] }],
    ['Hyper-SD15-12steps-CFG-lora', { steps: 12, sampler: 'ddim', guidanceScale: 5 }],
    ['Hyper-SD15-1step-lora', { steps: 1, stepRange: [1, 8], sampler: 'tcd', eta: 1, timesteps: [800] }],
    ['dmd2_sdxl_4step_lora_fp16', { steps: 4, sampler: 'lcm', timesteps: [999, 749, 499, 249] }],
    ['sd_xl_turbo_lora_v1', { name: 'Turbo', steps: 4, stepRange: [1, 8] }],
  ])('%s', (name, expected) => {
    expect(presetFor([name])).toMatchObject(expected)
  })

  it.each([
    'lightning_strikes',
    'Purple Lightning style XL',
    'hyperrealism_v3',
    'calcmark',
    'turbo_granny',
    'FLUX.1-Turbo-Alpha',
    'Hyper-FLUX.1-dev-8steps-lora',
    'watchdog',
    'ink_2000steps',
  ])('is none: %s', (name) => {
    expect(presetFor([name, undefined])).toBeUndefined()
  })

  it('grid of LCM', () => {
    expect(lcmTimesteps(2)).toEqual([999, 499])
    expect(lcmTimesteps(8)).toEqual([999, 879, 759, 639, 499, 379, 259, 139])
  })

  it('structure of Lightning under another name', () => {
    const info = { family: 'sdxl', rank: { min: 64, max: 64 } } as AdapterInfo
    expect(speedNotice(info, 788, [8, 8])).toMatch(/Lightning/)
    expect(speedNotice(info, 722, [8, 8])).toBeUndefined()
    expect(speedNotice(info, 788, [64])).toBeUndefined()
  })
})

describe('notes in a file', () => {
  const said = (notes: Record<string, string>) => describeFile(new Map(Object.entries(notes)))

  it('of Vignette’s own training', () => {
    const notes = {
      ...{ vignette_role: 'speed-fast', vignette_steps: '4', vignette_timesteps: '[999,749,499,249]' },
      ...{ vignette_active_steps: '[2,4]', vignette_sampler: 'ddim', vignette_guidance_scale: '1.0' },
      ...{
        vignette_weight: '1.0',
        vignette_author: 'A',
        vignette_licence: 'Apache-2.0',
        vignette_trigger: 'ink, wash',
      },
    }
    expect(said(notes)).toMatchObject({
      ...{ role: 'speed-fast', preferredWeight: 1, author: 'A', licence: 'Apache-2.0', triggers: ['ink', 'wash'] },
      preset: { steps: 4, timesteps: [999, 749, 499, 249], activeSteps: [2, 4], sampler: 'ddim', guidanceScale: 1 },
    })
  })

  it('that make no sense are left out', () => {
    const wild = {
      vignette_steps: '4',
      vignette_timesteps: '[1]',
      vignette_active_steps: '[3,9]',
      vignette_guidance_scale: 'x',
    }
    expect(said(wild).preset).toEqual({ name: '4 steps', sampler: 'euler', steps: 4, guidanceScale: 1 })
    expect(said({ vignette_steps: '1e9' }).preset).toBeUndefined()
    expect(said({ vignette_weight: '900' }).preferredWeight).toBeUndefined()
  })

  it('the weight from a sentence', () => {
    expect(said({ 'modelspec.usage_hint': 'Works best with a strength of 0.6 - 0.8.' })).toMatchObject({
      weightRange: [0.6, 0.8],
    })
    expect(said({ 'modelspec.usage_hint': 'weight: 0.7' }).preferredWeight).toBe(0.7)
    expect(said({ 'modelspec.usage_hint': 'Use 30 steps.' }).preferredWeight).toBeUndefined()
  })
})
