import type { Part } from '../build.ts'
import { requiredTensors } from '../build.ts'
import { clipL, openClipBigG, openClipH } from '../clip.ts'
import type { FamilyId } from '../family.ts'
import { sd15Unet, sd2Unet, sdxlUnet } from '../unet.ts'
import type { AdapterTarget, ModelLayers, ModelShape } from './types.ts'

type Configs = Pick<Part, 'part' | 'config'>

/** The modules of a model's networks that adapters can change, from its parts (`readParts`). */
export function modelShape(family: FamilyId, parts: readonly Configs[]): ModelShape {
  const layers: Partial<Record<AdapterTarget, ModelLayers>> = {}
  for (const { part, config } of parts) {
    if (part === 'vae' || part === 'tiny_vae') continue
    layers[part] = layersOf(requiredTensors(part, config as never))
  }
  return { family, layers }
}

function layersOf(required: ReadonlyMap<string, number[]>): ModelLayers {
  const layers = new Map<string, { weight: readonly number[]; bias?: readonly number[] }>()
  for (const [name, weight] of required) {
    const path = /^(.*)\.weight$/.exec(name)?.[1]
    if (path === undefined) continue
    const bias = required.get(`${path}.bias`)
    layers.set(path, bias ? { weight, bias } : { weight })
  }
  return layers
}

const standards: Record<FamilyId, () => Configs[]> = {
  sd15: () => [
    { part: 'unet', config: sd15Unet },
    { part: 'text_encoder', config: clipL },
  ],
  sd2: () => [
    { part: 'unet', config: sd2Unet },
    { part: 'text_encoder', config: openClipH },
  ],
  sdxl: () => [
    { part: 'unet', config: sdxlUnet },
    { part: 'text_encoder', config: clipL },
    { part: 'text_encoder_2', config: openClipBigG },
  ],
}

const made = new Map<FamilyId, ModelShape>()

/** The published model of a family, for files that are looked at without one. */
export function standardShape(family: FamilyId): ModelShape {
  const shape = made.get(family) ?? modelShape(family, standards[family]())
  made.set(family, shape)
  return shape
}
