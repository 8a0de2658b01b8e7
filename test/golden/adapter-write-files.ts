// The adapter files of adapter-write.py: npx tsx test/golden/adapter-write-files.ts FOLDER
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { modelShape } from '../../models/adapters/shape.ts'
import type { AdapterTarget, ModelShape } from '../../models/adapters/types.ts'
import { writeAdapter, type AdapterLayout, type LayerDelta } from '../../models/adapters/write.ts'
import type { StorageDtype } from '../../models/checkpoint/dtypes.ts'
import { clipConfigFrom } from '../../models/clip.ts'
import type { FamilyId } from '../../models/family.ts'
import { unetConfigFrom } from '../../models/unet.ts'
import { hashed } from '../unit/adapters-tools/numbers.ts'
import { readCases } from './networks-cases.ts'

export type WrittenFile = { name: string; layout: AdapterLayout; storage: StorageDtype; shape: ModelShape }

/** The networks of networks.json.gz by name. */
function shapeOf(family: FamilyId, networks: Partial<Record<AdapterTarget, string>>): ModelShape {
  const cases = readCases()
  const parts = Object.entries(networks).map(([part, name]) => {
    const config = cases.find((one) => one.name === name)!.config
    return part === 'unet'
      ? ({ part, config: unetConfigFrom(config) } as const)
      : ({ part: part as 'text_encoder' | 'text_encoder_2', config: clipConfigFrom(config) } as const)
  })
  return modelShape(family, parts)
}

export function writtenFiles(): WrittenFile[] {
  const sd = shapeOf('sd15', { unet: 'sd1', text_encoder: 'clip-l' })
  const xl = shapeOf('sdxl', { unet: 'sdxl', text_encoder: 'clip-l', text_encoder_2: 'open-clip' })
  return [
    { name: 'kohya-sd', layout: 'kohya', storage: 'F16', shape: sd },
    { name: 'kohya-xl', layout: 'kohya', storage: 'F32', shape: xl },
    { name: 'peft-sd', layout: 'diffusers', storage: 'F32', shape: sd },
    { name: 'peft-xl', layout: 'diffusers', storage: 'F16', shape: xl },
  ]
}

/** Attention and feed-forward of every block with rank 2 or 3, convolutions with rank 1; hashed numbers. */
export function layersOf({ name, shape }: WrittenFile): LayerDelta[] {
  const layers: LayerDelta[] = []
  for (const [target, modules] of Object.entries(shape.layers) as [AdapterTarget, NonNullable<ModelShape['layers']['unet']>][]) {
    for (const [path, { weight }] of modules) {
      const isLinear = /\.(attn[12]|ff|self_attn|mlp)\.|proj_(in|out)$/.test(path) && weight.length > 1
      const isConv = /\.(conv[12]|conv_shortcut)$|samplers\.0\.conv$/.test(path)
      if (!isLinear && !isConv) continue
      const rank = isConv ? 1 : path.includes('attn2') ? 3 : 2
      const k = weight.slice(1).reduce((size, dim) => size * dim, 1)
      const numbers = (end: string, count: number) => hashed(`${name} ${target}.${path}.${end}`, count)
      layers.push({ target, path, weight, rank, down: numbers('down', rank * k), up: numbers('up', weight[0] * rank) })
    }
  }
  return layers
}

export async function writeFiles(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true })
  for (const file of writtenFiles()) {
    const { name, layout, storage, shape } = file
    const notes = { title: `Test ${name}`, triggers: ['inked'], weight: 0.7 }
    await writeAdapter(join(folder, `${name}.safetensors`), layersOf(file), { layout, storage, shape, notes })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFiles(process.argv[2])
