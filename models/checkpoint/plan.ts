import { basename, extname, resolve } from 'node:path'
import { stat } from 'node:fs/promises'
import type { PartConfigs } from '../build.ts'
import { requiredTensors } from '../build.ts'
import { clipConfigFrom } from '../clip.ts'
import type { ConfigJson } from '../config-json.ts'
import { VignetteError } from '../errors.ts'
import type { FamilyId } from '../family.ts'
import { families } from '../family.ts'
import type { ModelManifest } from '../manifest.ts'
import { unetConfigFrom } from '../unet.ts'
import { vaeConfigFrom } from '../vae.ts'
import { detectFamily } from './detect.ts'
import { isFloat } from './dtypes.ts'
import { readDiffusersFolder } from './folder.ts'
import { inferClipConfig, inferUnetConfig, inferVaeConfig } from './infer.ts'
import { knownPreviewMatrix } from './preview-matrix.ts'
import { readSafetensors } from './safetensors.ts'
import { defaultsFor, scheduleOfConfig, scheduleOfFile } from './schedule.ts'
import type { ComponentName, Components, TensorSource } from './single-file.ts'
import { splitSingleFile } from './single-file.ts'

export type PlannedPart<P extends ComponentName = ComponentName> = {
  [K in P]: {
    part: K
    config: PartConfigs[K]
    /** Exactly the tensors that the networks need, with the shapes they need. */
    tensors: Map<string, TensorSource>
  }
}[P]

/** All that is known of a checkpoint before any weight is read. */
export type ImportPlan = {
  /** What the person chose, without its path and extension. */
  label: string
  root: string
  files: string[]
  family: FamilyId
  parts: PlannedPart[]
  manifest: Pick<
    ModelManifest,
    'schedule' | 'latents' | 'textEncoders' | 'nativeSize' | 'defaults' | 'previewMatrix'
  > & { name?: string }
  /** False when only running the network can tell what it predicts. */
  isPredictionCertain: boolean
}

type Found = {
  family: FamilyId
  components: Components
  json: Record<ComponentName, ConfigJson | undefined>
  files: string[]
  schedule: ReturnType<typeof scheduleOfFile>
  scheduler?: ConfigJson
  padTokens: (string | undefined)[]
  extras?: ConfigJson
}

/** Looks at a checkpoint file or diffusers folder: what it is, whether it is whole, how its parts are built. */
export async function planImport(source: string): Promise<ImportPlan> {
  const root = resolve(source)
  const isFolder = (await stat(root)).isDirectory()
  const label = basename(root)
  const found = isFolder ? await lookIntoFolder(root, label) : await lookIntoFile(root, label)
  const { family, components, json } = found

  const parts: PlannedPart[] = []
  for (const name of ['text_encoder', 'text_encoder_2', 'unet', 'vae'] as const) {
    if (name === 'text_encoder_2' && family !== 'sdxl') continue
    const tensors = components[name]
    const config = json[name]
    if (!tensors || tensors.size === 0 || !config) throw partMissing(label, name)
    parts.push(planPart(label, name, config, tensors))
  }
  const { schedule, isCertain } = found.schedule
  return {
    label: isFolder ? label : label.slice(0, label.length - extname(label).length),
    root,
    files: found.files,
    family,
    parts,
    isPredictionCertain: isCertain,
    manifest: { schedule, ...describe(label, found, parts) },
  }
}

async function lookIntoFolder(root: string, label: string): Promise<Found> {
  const folder = await readDiffusersFolder(root)
  const schedule = scheduleOfConfig(label, folder.scheduler)
  if (!schedule.isCertain && folder.family !== 'sd2') schedule.isCertain = true
  return { ...folder, json: folder.configs, schedule, scheduler: folder.scheduler, extras: folder.extras }
}

async function lookIntoFile(root: string, label: string): Promise<Found> {
  const file = await readSafetensors(root)
  const family = detectFamily(file.tensors, label)
  const components = await splitSingleFile(file, family)
  const { unet, vae, text_encoder: text, text_encoder_2: second } = components
  const firstActivation = family === 'sd2' ? 'gelu' : 'quick_gelu'
  return {
    family,
    components,
    json: {
      unet: unet && inferUnetConfig(unet, family),
      vae: vae && inferVaeConfig(vae, families[family].latentScale),
      text_encoder: text && inferClipConfig(text, firstActivation),
      text_encoder_2: second && inferClipConfig(second, 'gelu'),
    },
    files: [root],
    schedule: scheduleOfFile(family, file.tensors, file.metadata),
    padTokens: [],
  }
}

function partMissing(label: string, name: ComponentName): VignetteError {
  const what =
    name === 'vae' ? 'VAE (the part that turns latents into pictures)' : name === 'unet' ? 'UNet' : 'text encoder'
  return new VignetteError('checkpoint-incomplete', `${label} has no ${what}.`, {
    hint:
      name === 'vae' ? 'Look for a version of the model "with baked VAE".' : 'Look for the full version of the model.',
  })
}

function planPart(
  label: string,
  name: ComponentName,
  json: ConfigJson,
  tensors: Map<string, TensorSource>,
): PlannedPart {
  switch (name) {
    case 'unet': {
      const config = unetConfigFrom(json)
      return { part: name, config, tensors: complete(label, name, requiredTensors(name, config), tensors) }
    }
    case 'vae': {
      const config = vaeConfigFrom(json)
      return { part: name, config, tensors: complete(label, name, requiredTensors(name, config), tensors) }
    }
    default: {
      // SDXL's second tower always projects, whether or not its configuration names the class that does.
      const config = clipConfigFrom(
        name === 'text_encoder_2' ? { ...json, architectures: ['CLIPTextModelWithProjection'] } : json,
      )
      return { part: name, config, tensors: complete(label, name, requiredTensors(name, config), tensors) }
    }
  }
}

const withoutTrailingOnes = (shape: readonly number[]) => {
  let length = shape.length
  while (length > 0 && shape[length - 1] === 1) length--
  return shape.slice(0, length).join('×')
}

/** Picks what the networks need and brings it to their shapes; anything missing, misshapen or not a number is told. */
function complete(
  label: string,
  part: string,
  required: ReadonlyMap<string, number[]>,
  tensors: ReadonlyMap<string, TensorSource>,
): Map<string, TensorSource> {
  const out = new Map<string, TensorSource>()
  const missing: string[] = []
  const misshapen: string[] = []
  for (const [name, shape] of required) {
    const tensor = tensors.get(name)
    if (!tensor) missing.push(name)
    else if (!isFloat(tensor.dtype)) {
      throw new VignetteError(
        'checkpoint-unsupported',
        `${label} stores "${tensor.origin}" as ${tensor.dtype} codes, which Vignette cannot read.`,
        {
          hint: 'Look for a 16-bit version of the model (fp16 or bf16).',
        },
      )
    } else {
      const own = tensor.transpose ? [...tensor.shape].reverse() : tensor.shape
      if (withoutTrailingOnes(own) !== withoutTrailingOnes(shape))
        misshapen.push(`\`${name}\`: expected [${shape.join(', ')}], found [${own.join(', ')}]`)
      else out.set(name, { ...tensor, shape })
    }
  }
  if (missing.length > 0) {
    throw new VignetteError(
      'checkpoint-incomplete',
      `${label}: ${missing.length} of ${required.size} tensors of its ${part} are missing, first \`${missing[0]}\`.`,
      {
        hint: 'The download may be cut off; check the file size. Or the file is only a part of a model.',
      },
    )
  }
  if (misshapen.length > 0) {
    throw new VignetteError(
      'checkpoint-incomplete',
      `${label}: ${misshapen.length} tensors of its ${part} have another shape, first ${misshapen[0]}.`,
      {
        hint: 'The file may be a mix of two kinds of model. Look for another version of it.',
      },
    )
  }
  return out
}

function describe(
  label: string,
  { family: id, json, padTokens, extras, scheduler, schedule }: Found,
  parts: readonly PlannedPart[],
): Omit<ImportPlan['manifest'], 'schedule'> {
  const family = families[id]
  const unet = parts.find((part) => part.part === 'unet')!.config
  const vae = parts.find((part) => part.part === 'vae')!.config
  const spatialFactor = 2 ** (vae.blockOutChannels.length - 1)
  const trained = json.unet?.sample_size
  // Base models of SD 2 predict noise and were trained at 512, the others v at 768.
  const usual = id === 'sd2' && schedule.schedule.predictionType === 'epsilon' ? 512 : family.nativeSize
  const side = typeof trained === 'number' ? trained * spatialFactor : usual
  const [height, width] = Array.isArray(trained)
    ? (trained as number[]).map((size) => size * spatialFactor)
    : [side, side]
  const towers = parts.filter((part) => part.part === 'text_encoder' || part.part === 'text_encoder_2')
  const matrix = isMatrix(extras?.previewMatrix, unet.inChannels + 1)
    ? extras.previewMatrix
    : knownPreviewMatrix(id, vae)
  return {
    ...(typeof extras?.name === 'string' ? { name: extras.name } : {}),
    latents: { channels: vae.latentChannels, scale: vae.scalingFactor, shift: vae.shiftFactor, spatialFactor },
    textEncoders: towers.map(({ config }, i) => ({
      width: config.hiddenSize,
      layers: config.layers,
      padTokenId: padTokenId(padTokens[i]) ?? family.padTokenIds[i],
    })),
    nativeSize: { width, height },
    defaults: {
      ...defaultsFor(label, scheduler, schedule.schedule.zeroTerminalSnr),
      ...(isDefaults(extras?.defaults) ? extras.defaults : {}),
    },
    ...(matrix === undefined ? {} : { previewMatrix: matrix }),
  }
}

/** CLIP's vocabulary ends with its two special tokens; "!" is entry 0. */
function padTokenId(token: string | undefined): number | undefined {
  return token === '<|endoftext|>' ? 49407 : token === '!' ? 0 : undefined
}

function isMatrix(value: unknown, rows: number): value is number[][] {
  return (
    Array.isArray(value) &&
    value.length === rows &&
    value.every((row) => Array.isArray(row) && row.length === 3 && row.every(Number.isFinite))
  )
}

function isDefaults(value: unknown): value is Partial<ModelManifest['defaults']> {
  return typeof value === 'object' && value !== null
}
