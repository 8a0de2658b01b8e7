import { readFile, readdir } from 'node:fs/promises'
import { basename, join, relative, resolve, sep } from 'node:path'
import type { ConfigJson } from '../config-json.ts'
import { VignetteError } from '../errors.ts'
import type { FamilyId } from '../family.ts'
import type { StoredTensor } from '../graph/weights.ts'
import { clipParts } from './names/clip.ts'
import { vaeNameFromLdm } from './names/vae-ldm.ts'
import { isFile, readSafetensors } from './safetensors.ts'
import type { ComponentName, Components, TensorSource } from './single-file.ts'
import { pickleError } from './sniff.ts'

/** A model in the layout of the diffusers library: one sub-folder per part, each with its config.json. */
export type DiffusersFolder = {
  family: FamilyId
  components: Components
  configs: Record<ComponentName, ConfigJson | undefined>
  scheduler: ConfigJson | undefined
  /** Token that fills unused positions, per text encoder, where the tokenizer says so. */
  padTokens: (string | undefined)[]
  /** Weight and config files that were read, for the source's hash. */
  files: string[]
  /** Settings of our own that a folder may carry in `vignette.json`: name, defaults, preview matrix, native size. */
  extras: ConfigJson | undefined
}

const componentNames = ['unet', 'vae', 'text_encoder', 'text_encoder_2'] as const

export async function readDiffusersFolder(folder: string): Promise<DiffusersFolder> {
  const files: string[] = []
  const json = async (...path: string[]): Promise<ConfigJson | undefined> => {
    const file = join(folder, ...path)
    const text = await readFile(file, 'utf8').catch((error: unknown) => {
      if (error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR'))
        return undefined
      throw error
    })
    if (text === undefined) return undefined
    files.push(file)
    return parseConfig(file, text)
  }
  const label = basename(resolve(folder))
  const index = await json('model_index.json')
  const unet = await json('unet', 'config.json')
  if (!unet) throw await notDiffusers(folder, label, index)
  const configs = {
    unet,
    vae: await json('vae', 'config.json'),
    text_encoder: await json('text_encoder', 'config.json'),
    text_encoder_2: await json('text_encoder_2', 'config.json'),
  }
  const family = folderFamily(label, index, configs)

  const components: Components = {}
  for (const name of componentNames) {
    if (!configs[name] || (name === 'text_encoder_2' && family !== 'sdxl')) continue
    const { tensors, read } = await componentTensors(
      join(folder, name),
      name === 'unet' || name === 'vae' ? 'diffusion_pytorch_model' : 'model',
    )
    files.push(...read)
    components[name] = rename(name, tensors)
  }
  const padTokens = [
    await json('tokenizer', 'special_tokens_map.json'),
    await json('tokenizer_2', 'special_tokens_map.json'),
  ].map(padToken)
  return {
    family,
    components,
    configs,
    scheduler: await json('scheduler', 'scheduler_config.json'),
    padTokens,
    files: files.sort(),
    extras: await json('vignette.json'),
  }
}

function parseConfig(file: string, text: string): ConfigJson {
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as ConfigJson
  } catch {
    // falls through to the same message
  }
  throw new VignetteError(
    'file-unreadable',
    `${basename(file)} in ${basename(join(file, '..'))} is damaged: it is not valid JSON.`,
    {
      hint: 'Fetch the model again.',
    },
  )
}

async function notDiffusers(folder: string, label: string, index: ConfigJson | undefined): Promise<VignetteError> {
  const names = await readdir(folder)
  const kind = typeof index?._class_name === 'string' ? index._class_name.replace(/Pipeline$/, '') : undefined
  if (kind !== undefined && (names.includes('transformer') || names.includes('prior'))) {
    return new VignetteError('checkpoint-unsupported', `${label} is a ${kind} model, which Vignette cannot run yet.`, {
      hint: 'Stable Diffusion 1.x, 2.x and XL models work.',
    })
  }
  if (
    names.includes('adapter_config.json') ||
    names.some((name) => /lora/i.test(name) && name.endsWith('.safetensors'))
  ) {
    return new VignetteError('checkpoint-unknown', `${label} looks like an adapter (LoRA), not a whole model.`, {
      hint: 'Import it under Adapters.',
    })
  }
  if (names.includes('config.json')) {
    return new VignetteError('checkpoint-unknown', `${label} is only one part of a model.`, {
      hint: 'Choose the folder above it, which holds model_index.json.',
    })
  }
  const single = names.filter((name) => name.endsWith('.safetensors'))
  return new VignetteError('checkpoint-unknown', `${label} is not a model folder: it has no unet/config.json.`, {
    hint:
      single.length > 0
        ? `Choose the file inside it, for example ${single[0]}.`
        : 'Choose the folder that holds model_index.json.',
  })
}

const cannotRun = (label: string, what: string) =>
  new VignetteError('checkpoint-unsupported', `${label} is ${what}, which Vignette cannot run yet.`, {
    hint: 'Stable Diffusion 1.x, 2.x and XL models work.',
  })

const downBlocks = ['CrossAttnDownBlock2D', 'DownBlock2D']

/** The family by what the configurations say; everything the graphs cannot express is refused by name. */
function folderFamily(
  label: string,
  index: ConfigJson | undefined,
  { unet, text_encoder: text, text_encoder_2: second, vae }: Record<ComponentName, ConfigJson | undefined>,
): FamilyId {
  if (!unet) throw new Error('checked by the caller')
  const reads = unet.in_channels as number | undefined
  const writes = unet.out_channels as number | undefined
  if (typeof reads === 'number' && typeof writes === 'number' && reads !== writes) {
    throw cannotRun(
      label,
      reads === 2 * writes + 1
        ? `an inpainting model (it reads ${reads} channels)`
        : reads === 2 * writes
          ? `an InstructPix2Pix model (it reads ${reads} channels)`
          : `a model that reads ${reads} channels instead of ${writes}`,
    )
  }
  const blocks = Array.isArray(unet.down_block_types) ? unet.down_block_types : downBlocks
  const strange = blocks.find((type) => !downBlocks.includes(type as string))
  if (strange !== undefined) throw cannotRun(label, `a model with ${String(strange)} in its UNet`)
  if (unet.class_embed_type != null || unet.num_class_embeds != null)
    throw cannotRun(label, 'an unCLIP or upscaling model')
  if (unet.encoder_hid_dim_type != null) throw cannotRun(label, 'a Kandinsky or IF model')
  if (unet.time_cond_proj_dim != null) throw cannotRun(label, 'a latent-consistency model with built-in guidance')
  if (vae && vae._class_name !== undefined && vae._class_name !== 'AutoencoderKL')
    throw cannotRun(label, `a model with another image decoder (${String(vae._class_name)})`)
  for (const tower of [text, second]) {
    const type = tower?.model_type
    if (type !== undefined && type !== 'clip_text_model' && type !== 'clip')
      throw cannotRun(label, `a model with another text encoder (${String(type)})`)
  }
  if (unet.addition_embed_type === 'text_time') {
    if (!text || index?.requires_aesthetics_score === true) throw cannotRun(label, 'the SDXL refiner')
    return 'sdxl'
  }
  if (unet.addition_embed_type != null)
    throw cannotRun(label, `a model with "${String(unet.addition_embed_type)}" conditioning`)
  return unet.cross_attention_dim === 1024 || text?.hidden_act === 'gelu' ? 'sd2' : 'sd15'
}

/** The tensors of one sub-folder: one file or a sharded set, full precision before the fp16 variant. */
async function componentTensors(
  folder: string,
  stem: string,
): Promise<{ tensors: Map<string, StoredTensor>; read: string[] }> {
  for (const variant of ['', '.fp16']) {
    const single = join(folder, `${stem}${variant}.safetensors`)
    if (await isFile(single)) return { tensors: (await readSafetensors(single)).tensors, read: [single] }
    for (const name of [`${stem}.safetensors.index${variant}.json`, `${stem}${variant}.safetensors.index.json`]) {
      if (await isFile(join(folder, name))) return readShards(join(folder, name))
    }
  }
  const names = await readdir(folder)
  const pickle = names.find((name) => /\.(bin|ckpt|pt|pth)$/.test(name))
  if (pickle) throw pickleError(join(folder, pickle))
  throw new VignetteError('checkpoint-incomplete', `${basename(folder)} holds no weights.`, {
    hint: `Fetch ${stem}.safetensors into it.`,
  })
}

/** Reads the shards that an index names. Names are resolved inside the index's own folder and nowhere else. */
export async function readShards(indexPath: string): Promise<{ tensors: Map<string, StoredTensor>; read: string[] }> {
  const folder = join(indexPath, '..')
  const map = parseConfig(indexPath, await readFile(indexPath, 'utf8')).weight_map
  if (typeof map !== 'object' || map === null) {
    throw new VignetteError('file-unreadable', `${basename(indexPath)} is damaged: it lists no tensors.`, {
      hint: 'Fetch the model again.',
    })
  }
  const tensors = new Map<string, StoredTensor>()
  const shards = new Map<string, Map<string, StoredTensor>>()
  for (const [name, shard] of Object.entries(map)) {
    const path = typeof shard === 'string' ? resolve(folder, shard) : ''
    const inside = relative(folder, path)
    if (
      path === '' ||
      inside === '' ||
      inside.startsWith('..') ||
      inside.includes(sep) ||
      inside.includes('/') ||
      resolve(inside) === inside
    ) {
      throw new VignetteError(
        'file-unreadable',
        `${basename(indexPath)} points outside its own folder ("${String(shard)}").`,
        {
          hint: 'The model was tampered with or packed wrongly. Fetch it from another place.',
        },
      )
    }
    const known = shards.get(path) ?? (await readSafetensors(path)).tensors
    shards.set(path, known)
    const tensor = known.get(name)
    if (!tensor) {
      throw new VignetteError(
        'checkpoint-incomplete',
        `${basename(path)} does not hold "${name}", which ${basename(indexPath)} promises.`,
        { hint: 'Fetch the model again.' },
      )
    }
    tensors.set(name, tensor)
  }
  return { tensors, read: [indexPath, ...shards.keys()] }
}

function rename(component: ComponentName, tensors: Map<string, StoredTensor>): Map<string, TensorSource> {
  const out = new Map<string, TensorSource>()
  for (const [origin, tensor] of tensors) {
    if (component === 'unet') out.set(origin, { ...tensor, origin })
    else if (component === 'vae') out.set(vaeNameFromLdm(origin, 0) ?? origin, { ...tensor, origin })
    else for (const part of clipParts(origin)) out.set(part.name, { ...tensor, origin })
  }
  return out
}

/** transformers writes a token as text or as an object with its text in `content`. */
function padToken(map: ConfigJson | undefined): string | undefined {
  const token = map?.pad_token
  if (typeof token === 'string') return token
  return typeof token === 'object' && token !== null && 'content' in token ? String(token.content) : undefined
}
