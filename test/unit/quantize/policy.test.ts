import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { requiredTensors } from '../../../models/build.ts'
import type { LayerPlan, QuantizeStep } from '../../../models/quantize/policy.ts'
import { layerBytes, quantizeSteps } from '../../../models/quantize/policy.ts'
import type { UnetConfig } from '../../../models/unet.ts'
import { sd15Unet, sd2Unet, sdxlUnet, unetConfigFrom } from '../../../models/unet.ts'

const starter = unetConfigFrom(
  JSON.parse(readFileSync(new URL('../../../models/starter/unet/config.json', import.meta.url), 'utf8')),
)
const networks: [string, UnetConfig][] = [
  ['SD 1.x', sd15Unet],
  ['SD 2.x', sd2Unet],
  ['SDXL', sdxlUnet],
  ['the starter', starter],
]
const layersOf = (steps: readonly QuantizeStep[]) => steps.flatMap(({ layers }) => layers)

describe.each(networks)('%s', (_, config) => {
  const steps = quantizeSteps(config)
  const layers = layersOf(steps)
  const tensors = requiredTensors('unet', config)

  test('every matrix between the first and the last convolution has its turn, once', () => {
    const matrices = [...tensors].filter(([name, shape]) => name.endsWith('.weight') && shape.length >= 2)
    const expected = matrices
      .map(([name]) => name.slice(0, -'.weight'.length))
      .filter((path) => !/^conv_(in|out)$/.test(path))
    expect(layers.map(({ path }) => path).sort()).toEqual(expected.sort())
    for (const { path, n, k, taps } of layers) {
      const shape = tensors.get(`${path}.weight`)!
      expect([n, k]).toEqual([shape[0], shape.slice(1).reduce((product, size) => product * size, 1)])
      expect(taps).toBe(shape[2] === 3 ? 9 : 1)
    }
  })

  test('the layers of a step read the same, in the same form', () => {
    for (const step of steps) {
      const forms = new Set(step.layers.map(({ k, bits, group, rank, taps }) => [k, bits, group, rank, taps].join()))
      expect([step.layers[0].path, forms.size]).toEqual([step.layers[0].path, 1])
    }
  })

  test('whoever reads a smoothed input comes before the layer that makes it, which makes enough of it', () => {
    const position = new Map(steps.flatMap((step, i) => step.layers.map(({ path }) => [path, i] as const)))
    let makers = 0
    steps.forEach(({ smoother, layers: [reader] }, i) => {
      if (!smoother) return
      if ('norm' in smoother) {
        expect(tensors.get(`${smoother.norm}.weight`)).toEqual([reader.k])
        return
      }
      makers++
      expect(position.get(smoother.layer)).toBeGreaterThan(i)
      expect(smoother.rows).toBe(reader.k)
      const maker = layers.find(({ path }) => path === smoother.layer)!
      // The value half of a GEGLU, all of a value projection.
      expect(maker.n).toBe(smoother.layer.endsWith('ff.net.0.proj') ? 2 * smoother.rows : smoother.rows)
    })
    expect(makers).toBe(3 * layers.filter(({ path }) => path.endsWith('ff.net.2')).length)
  })

  test('is clearly smaller than halves, branches included', () => {
    const weights = layers.reduce((sum, { n, k }) => sum + n * k, 0)
    const bytes = layers.reduce((sum, plan) => sum + layerBytes(plan), 0)
    expect((8 * bytes) / weights).toBeLessThan(config === starter ? 7 : 5.4)
  })
})

describe('the choice by layer', () => {
  const plans = new Map(layersOf(quantizeSteps(sd15Unet)).map((plan) => [plan.path, plan]))
  const formOf = (path: string) => {
    const { bits, group, rank } = plans.get(path)!
    return [bits, group, rank]
  }
  test('wide linears get rank 32, narrow ones and convolutions 16', () => {
    expect(formOf('mid_block.attentions.0.transformer_blocks.0.attn1.to_q')).toEqual([4, 64, 32])
    expect(formOf('down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q')).toEqual([4, 64, 16])
    expect(formOf('up_blocks.1.resnets.0.conv1')).toEqual([4, 64, 16])
    expect(formOf('down_blocks.1.downsamplers.0.conv')).toEqual([4, 64, 16])
    expect(formOf('mid_block.resnets.0.time_emb_proj')).toEqual([4, 64, 8])
  })

  test('text projections, shortcuts and the time embedding get 8 bits without a branch', () => {
    for (const path of [
      'mid_block.attentions.0.transformer_blocks.0.attn2.to_k',
      'mid_block.attentions.0.proj_in',
      'mid_block.attentions.0.proj_out',
      'up_blocks.1.resnets.0.conv_shortcut',
      'time_embedding.linear_1',
    ])
      expect([path, ...formOf(path)]).toEqual([path, 8, 64, 0])
  })

  test('the input of self-attention is shared; the fast mode gives inputs from norms and into convolutions one scale', () => {
    const steps = quantizeSteps(sd15Unet)
    const stepOf = (path: string) => steps.find(({ layers }) => layers.some((plan) => plan.path.endsWith(path)))!
    expect(stepOf('attn1.to_v').layers.map(({ path }) => path.split('.').at(-1))).toEqual(['to_q', 'to_k', 'to_v'])
    expect(stepOf('attn2.to_v').layers.map(({ path }) => path.split('.').at(-1))).toEqual(['to_k', 'to_v'])
    for (const path of ['attn1.to_q', 'ff.net.0.proj', 'resnets.0.conv1', 'proj_in'])
      expect([path, stepOf(path).activations]).toEqual([path, 'tensor'])
    for (const path of ['to_out.0', 'ff.net.2', 'proj_out', 'conv_shortcut', 'time_emb_proj'])
      expect([path, stepOf(path).activations]).toEqual([path, 'token'])
  })
})

test('bytes of a layer: codes, scales of two bytes and the branch in halves', () => {
  const plan: LayerPlan = { path: 'a', n: 10, k: 80, taps: 1, bits: 4, group: 32, rank: 4 }
  expect(layerBytes(plan)).toBe(10 * 3 * 16 + 10 * 3 * 2 + 2 * 4 * 90)
  expect(layerBytes({ ...plan, bits: 8, rank: 0 })).toBe(10 * 3 * 32 + 10 * 3 * 2)
})
