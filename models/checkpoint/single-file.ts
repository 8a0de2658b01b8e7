import { basename } from 'node:path'
import { VignetteError } from '../errors.ts'
import type { FamilyId } from '../family.ts'
import type { StoredTensor } from '../graph/weights.ts'
import { toFloat32 } from './dtypes.ts'
import { clipParts } from './names/clip.ts'
import { blocksPerLevel, unetNameFromLdm } from './names/unet-ldm.ts'
import { decoderLevels, vaeNameFromLdm } from './names/vae-ldm.ts'
import { diffusionTensors, textPrefixes, textTensors, vaeTensors } from './prefixes.ts'
import type { NamedTensor } from './prefixes.ts'
import type { SafetensorsFile } from './safetensors.ts'
import { readTensor } from './safetensors.ts'

/** Where the values of one tensor come from, and what is done to them on the way. */
export type TensorSource = NamedTensor & {
  /** A matrix to be turned, rows to columns. */
  transpose?: true
  /** Factor of a scaled fp8 tensor. */
  scale?: number
}

export type ComponentName = 'unet' | 'vae' | 'text_encoder' | 'text_encoder_2'
/** One table per network, under diffusers names. */
export type Components = Partial<Record<ComponentName, Map<string, TensorSource>>>

/** The components of a single-file checkpoint ("LDM" layout), renamed. Nothing is checked for completeness yet. */
export async function splitSingleFile(file: SafetensorsFile, family: FamilyId): Promise<Components> {
  const tensors = await withScales(file)
  const net = diffusionTensors(tensors)
  const perLevel = blocksPerLevel(net.keys())
  const vae = vaeTensors(tensors)
  const levels = decoderLevels(vae.keys())
  const components: Components = {
    unet: rename(net, (name) => unetNameFromLdm(name, perLevel)),
    vae: rename(vae, (name) => vaeNameFromLdm(name, levels)),
  }
  if (family === 'sdxl') {
    components.text_encoder = renameTower(textTensors(tensors, textPrefixes.first))
    components.text_encoder_2 = renameTower(textTensors(tensors, textPrefixes.second))
  } else {
    components.text_encoder = renameTower(textTensors(tensors, textPrefixes.single))
    if (family === 'sd2') dropUnusedBlock(components.text_encoder)
  }
  // Only SDXL's second tower projects what it pools.
  for (const name of components.text_encoder.keys())
    if (name.startsWith('text_projection')) components.text_encoder.delete(name)
  return components
}

function rename(
  tensors: Map<string, NamedTensor>,
  nameOf: (name: string) => string | undefined,
): Map<string, TensorSource> {
  const out = new Map<string, TensorSource>()
  for (const [name, tensor] of tensors) {
    const target = nameOf(name)
    if (target !== undefined) out.set(target, tensor)
  }
  return out
}

function renameTower(tensors: Map<string, NamedTensor>): Map<string, TensorSource> {
  const out = new Map<string, TensorSource>()
  for (const [name, tensor] of tensors) {
    for (const { name: target, transpose, third } of clipParts(name)) {
      out.set(target, {
        ...(third === undefined ? tensor : rowsThird(tensor, third)),
        ...(transpose ? { transpose } : {}),
      })
    }
  }
  return out
}

/** One third of the rows; rows lie one after the other, so it is a shorter stretch of the same file. */
function rowsThird(tensor: NamedTensor, third: number): NamedTensor {
  const length = tensor.length / 3
  return {
    ...tensor,
    offset: tensor.offset + third * length,
    length,
    shape: [tensor.shape[0] / 3, ...tensor.shape.slice(1)],
  }
}

/** Stable Diffusion 2 files carry all 24 blocks of OpenCLIP-H; the model was trained on the 23rd block's output. */
function dropUnusedBlock(tower: Map<string, TensorSource>): void {
  for (const name of [...tower.keys()]) if (name.startsWith('text_model.encoder.layers.23.')) tower.delete(name)
}

const scaleEnding = /\.(scale_weight|weight_scale)$/

/**
 * The tensors, with the factors of a scaled fp8 file (`X.scale_weight` beside `X.weight`) attached to what they scale.
 * Codes that need more than one factor are refused: read as plain numbers they would give noise.
 */
async function withScales(file: SafetensorsFile): Promise<Map<string, StoredTensor & { scale?: number }>> {
  const out = new Map<string, StoredTensor & { scale?: number }>()
  const packed = [...file.tensors.keys()].find((name) => name.endsWith('.comfy_quant'))
  if (packed !== undefined) throw quantised(file, packed)
  for (const [name, tensor] of file.tensors) {
    if (scaleEnding.test(name) || name.endsWith('.scale_input') || name.endsWith('scaled_fp8')) continue
    const path = name.endsWith('.weight') ? name.slice(0, -'.weight'.length) : undefined
    const factor =
      path === undefined
        ? undefined
        : (file.tensors.get(`${path}.scale_weight`) ?? file.tensors.get(`${path}.weight_scale`))
    if (!factor) {
      out.set(name, tensor)
      continue
    }
    if (factor.shape.some((size) => size !== 1) || !tensor.dtype.startsWith('F8')) throw quantised(file, name)
    out.set(name, { ...tensor, scale: toFloat32(await readTensor(factor), factor.dtype)[0] })
  }
  return out
}

function quantised(file: SafetensorsFile, name: string): VignetteError {
  return new VignetteError(
    'checkpoint-unsupported',
    `${basename(file.path)} is quantised in a way Vignette cannot read (at "${name}").`,
    {
      hint: 'Look for a 16-bit version of the model (fp16 or bf16).',
    },
  )
}
