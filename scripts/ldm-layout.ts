// Names and shapes of Stable Diffusion checkpoints in the original single-file layout, enumerated the way the original
// code builds its modules and not by reversing the importer's tables, so that the two can be tested on each other.

export type LdmTensor = { name: string; shape: number[] }

export type LdmConfig = {
  family: 'sd15' | 'sd2' | 'sdxl'
  /** UNet: channels of the first level, factors per level, residual blocks per level, transformer depth per level. */
  channels: number
  factors: number[]
  resBlocks: number
  depths: number[]
  midDepth: number
  contextWidth: number
  /** Width of SDXL's extra vector (pooled text ‖ six embedded numbers); absent for the others. */
  labelWidth?: number
  latentChannels: number
  vae: { channels: number; factors: number[]; resBlocks: number }
  /** CLIP-L in Hugging Face names (sd15, sdxl) and OpenCLIP (sd2, sdxl). */
  clip?: { width: number; layers: number; mlp: number }
  openClip?: { width: number; layers: number; mlp: number }
  vocabulary: number
}

const clipL = { width: 768, layers: 12, mlp: 3072 }
const sdVae = { channels: 128, factors: [1, 2, 4, 4], resBlocks: 2 }

export const ldmConfigs: Record<'sd15' | 'sd2' | 'sdxl', LdmConfig> = {
  sd15: {
    family: 'sd15',
    channels: 320,
    factors: [1, 2, 4, 4],
    resBlocks: 2,
    depths: [1, 1, 1, 0],
    midDepth: 1,
    contextWidth: 768,
    latentChannels: 4,
    vae: sdVae,
    clip: clipL,
    vocabulary: 49408,
  },
  sd2: {
    family: 'sd2',
    channels: 320,
    factors: [1, 2, 4, 4],
    resBlocks: 2,
    depths: [1, 1, 1, 0],
    midDepth: 1,
    contextWidth: 1024,
    latentChannels: 4,
    vae: sdVae,
    openClip: { width: 1024, layers: 24, mlp: 4096 },
    vocabulary: 49408,
  },
  sdxl: {
    family: 'sdxl',
    channels: 320,
    factors: [1, 2, 4],
    resBlocks: 2,
    depths: [0, 2, 10],
    midDepth: 10,
    contextWidth: 2048,
    labelWidth: 2816,
    latentChannels: 4,
    vae: sdVae,
    clip: clipL,
    openClip: { width: 1280, layers: 32, mlp: 5120 },
    vocabulary: 49408,
  },
}

const tinyVae = { channels: 32, factors: [1, 1, 2, 2], resBlocks: 1 }
const tinyClip = { width: 64, layers: 2, mlp: 128 }

/** The same structures at widths of 32 to 128: a few megabytes, for tests. */
export const tinyLdmConfigs: Record<'sd15' | 'sd2' | 'sdxl', LdmConfig> = {
  sd15: {
    family: 'sd15',
    channels: 32,
    factors: [1, 2, 2],
    resBlocks: 1,
    depths: [1, 1, 0],
    midDepth: 1,
    contextWidth: 64,
    latentChannels: 4,
    vae: tinyVae,
    clip: tinyClip,
    vocabulary: 49408,
  },
  sd2: {
    family: 'sd2',
    channels: 64,
    factors: [1, 2],
    resBlocks: 2,
    depths: [1, 0],
    midDepth: 1,
    contextWidth: 64,
    latentChannels: 4,
    vae: tinyVae,
    openClip: tinyClip,
    vocabulary: 49408,
  },
  sdxl: {
    family: 'sdxl',
    channels: 64,
    factors: [1, 2, 2],
    resBlocks: 1,
    depths: [0, 1, 2],
    midDepth: 2,
    contextWidth: 128,
    labelWidth: 64 + 6 * 256,
    latentChannels: 4,
    vae: tinyVae,
    clip: tinyClip,
    openClip: tinyClip,
    vocabulary: 49408,
  },
}

const linear = (name: string, out: number, into: number, bias = true): LdmTensor[] => [
  { name: `${name}.weight`, shape: [out, into] },
  ...(bias ? [{ name: `${name}.bias`, shape: [out] }] : []),
]
const conv = (name: string, out: number, into: number, kernel: number): LdmTensor[] => [
  { name: `${name}.weight`, shape: [out, into, kernel, kernel] },
  { name: `${name}.bias`, shape: [out] },
]
const norm = (name: string, width: number): LdmTensor[] => [
  { name: `${name}.weight`, shape: [width] },
  { name: `${name}.bias`, shape: [width] },
]

function resBlock(name: string, into: number, out: number, time: number): LdmTensor[] {
  return [
    ...norm(`${name}.in_layers.0`, into),
    ...conv(`${name}.in_layers.2`, out, into, 3),
    ...linear(`${name}.emb_layers.1`, out, time),
    ...norm(`${name}.out_layers.0`, out),
    ...conv(`${name}.out_layers.3`, out, out, 3),
    ...(into === out ? [] : conv(`${name}.skip_connection`, out, into, 1)),
  ]
}

function spatialTransformer(name: string, width: number, depth: number, context: number, isConv: boolean): LdmTensor[] {
  const attention = (path: string, source: number) => [
    ...linear(`${path}.to_q`, width, width, false),
    ...linear(`${path}.to_k`, width, source, false),
    ...linear(`${path}.to_v`, width, source, false),
    ...linear(`${path}.to_out.0`, width, width),
  ]
  const project = (path: string) => (isConv ? conv(path, width, width, 1) : linear(path, width, width))
  const blocks = Array.from({ length: depth }, (_, d) => {
    const path = `${name}.transformer_blocks.${d}`
    return [
      ...attention(`${path}.attn1`, width),
      ...linear(`${path}.ff.net.0.proj`, 8 * width, width),
      ...linear(`${path}.ff.net.2`, width, 4 * width),
      ...attention(`${path}.attn2`, context),
      ...[1, 2, 3].flatMap((i) => norm(`${path}.norm${i}`, width)),
    ]
  })
  return [
    ...norm(`${name}.norm`, width),
    ...project(`${name}.proj_in`),
    ...blocks.flat(),
    ...project(`${name}.proj_out`),
  ]
}

function unet(config: LdmConfig): LdmTensor[] {
  const { channels, factors, resBlocks, depths, contextWidth } = config
  const time = 4 * channels
  const isConv = config.family === 'sd15'
  const attention = (name: string, width: number, depth: number) =>
    depth === 0 ? [] : spatialTransformer(name, width, depth, contextWidth, isConv)
  const out: LdmTensor[] = [...linear('time_embed.0', time, channels), ...linear('time_embed.2', time, time)]
  if (config.labelWidth !== undefined)
    out.push(...linear('label_emb.0.0', time, config.labelWidth), ...linear('label_emb.0.2', time, time))

  out.push(...conv('input_blocks.0.0', channels, config.latentChannels, 3))
  const skips = [channels]
  let width = channels
  let index = 1
  factors.forEach((factor, level) => {
    for (let i = 0; i < resBlocks; i++, index++) {
      out.push(...resBlock(`input_blocks.${index}.0`, width, factor * channels, time))
      width = factor * channels
      out.push(...attention(`input_blocks.${index}.1`, width, depths[level]))
      skips.push(width)
    }
    if (level < factors.length - 1) {
      out.push(...conv(`input_blocks.${index}.0.op`, width, width, 3))
      skips.push(width)
      index++
    }
  })

  out.push(...resBlock('middle_block.0', width, width, time))
  out.push(...attention('middle_block.1', width, config.midDepth))
  out.push(...resBlock('middle_block.2', width, width, time))

  index = 0
  for (let level = factors.length - 1; level >= 0; level--) {
    for (let i = 0; i <= resBlocks; i++, index++) {
      let part = 0
      out.push(...resBlock(`output_blocks.${index}.${part++}`, width + skips.pop()!, factors[level] * channels, time))
      width = factors[level] * channels
      if (depths[level] > 0) out.push(...attention(`output_blocks.${index}.${part++}`, width, depths[level]))
      if (level > 0 && i === resBlocks) out.push(...conv(`output_blocks.${index}.${part}.conv`, width, width, 3))
    }
  }
  out.push(...norm('out.0', width), ...conv('out.2', config.latentChannels, width, 3))
  return prefixed('model.diffusion_model.', out)
}

function vae(config: LdmConfig): LdmTensor[] {
  const { channels, factors, resBlocks } = config.vae
  const latents = config.latentChannels
  const block = (name: string, into: number, out: number) => [
    ...norm(`${name}.norm1`, into),
    ...conv(`${name}.conv1`, out, into, 3),
    ...norm(`${name}.norm2`, out),
    ...conv(`${name}.conv2`, out, out, 3),
    ...(into === out ? [] : conv(`${name}.nin_shortcut`, out, into, 1)),
  ]
  const mid = (name: string, width: number) => [
    ...block(`${name}.block_1`, width, width),
    ...norm(`${name}.attn_1.norm`, width),
    ...['q', 'k', 'v', 'proj_out'].flatMap((part) => conv(`${name}.attn_1.${part}`, width, width, 1)),
    ...block(`${name}.block_2`, width, width),
  ]
  const out: LdmTensor[] = [...conv('encoder.conv_in', channels, 3, 3)]
  let width = channels
  factors.forEach((factor, level) => {
    for (let i = 0; i < resBlocks; i++) {
      out.push(...block(`encoder.down.${level}.block.${i}`, width, factor * channels))
      width = factor * channels
    }
    if (level < factors.length - 1) out.push(...conv(`encoder.down.${level}.downsample.conv`, width, width, 3))
  })
  out.push(
    ...mid('encoder.mid', width),
    ...norm('encoder.norm_out', width),
    ...conv('encoder.conv_out', 2 * latents, width, 3),
  )

  out.push(...conv('decoder.conv_in', width, latents, 3), ...mid('decoder.mid', width))
  for (let level = factors.length - 1; level >= 0; level--) {
    for (let i = 0; i <= resBlocks; i++) {
      out.push(...block(`decoder.up.${level}.block.${i}`, width, factors[level] * channels))
      width = factors[level] * channels
    }
    if (level > 0) out.push(...conv(`decoder.up.${level}.upsample.conv`, width, width, 3))
  }
  out.push(...norm('decoder.norm_out', width), ...conv('decoder.conv_out', 3, width, 3))
  out.push(...conv('quant_conv', 2 * latents, 2 * latents, 1), ...conv('post_quant_conv', latents, latents, 1))
  return prefixed('first_stage_model.', out)
}

function clip({ width, layers, mlp }: { width: number; layers: number; mlp: number }, vocabulary: number): LdmTensor[] {
  const out: LdmTensor[] = [
    { name: 'embeddings.token_embedding.weight', shape: [vocabulary, width] },
    { name: 'embeddings.position_embedding.weight', shape: [77, width] },
    ...norm('final_layer_norm', width),
  ]
  for (let i = 0; i < layers; i++) {
    const path = `encoder.layers.${i}`
    out.push(...norm(`${path}.layer_norm1`, width), ...norm(`${path}.layer_norm2`, width))
    for (const part of ['q', 'k', 'v', 'out']) out.push(...linear(`${path}.self_attn.${part}_proj`, width, width))
    out.push(...linear(`${path}.mlp.fc1`, mlp, width), ...linear(`${path}.mlp.fc2`, width, mlp))
  }
  return prefixed('text_model.', out)
}

function openClip(
  { width, layers, mlp }: { width: number; layers: number; mlp: number },
  vocabulary: number,
): LdmTensor[] {
  const out: LdmTensor[] = [
    { name: 'positional_embedding', shape: [77, width] },
    { name: 'text_projection', shape: [width, width] },
    { name: 'logit_scale', shape: [] },
    { name: 'token_embedding.weight', shape: [vocabulary, width] },
    ...norm('ln_final', width),
  ]
  for (let i = 0; i < layers; i++) {
    const path = `transformer.resblocks.${i}`
    out.push(
      { name: `${path}.attn.in_proj_weight`, shape: [3 * width, width] },
      { name: `${path}.attn.in_proj_bias`, shape: [3 * width] },
    )
    out.push(
      ...linear(`${path}.attn.out_proj`, width, width),
      ...norm(`${path}.ln_1`, width),
      ...norm(`${path}.ln_2`, width),
    )
    out.push(...linear(`${path}.mlp.c_fc`, mlp, width), ...linear(`${path}.mlp.c_proj`, width, mlp))
  }
  return out
}

const prefixed = (prefix: string, tensors: LdmTensor[]) =>
  tensors.map(({ name, shape }) => ({ name: prefix + name, shape }))

/** Every tensor of a checkpoint, with the unused ones that real files carry along (schedule, position ids). */
export function ldmTensors(config: LdmConfig): LdmTensor[] {
  const towers =
    config.family === 'sdxl'
      ? [
          ...prefixed('conditioner.embedders.0.transformer.', clip(config.clip!, config.vocabulary)),
          ...prefixed('conditioner.embedders.1.model.', openClip(config.openClip!, config.vocabulary)),
        ]
      : config.clip
        ? prefixed('cond_stage_model.transformer.', clip(config.clip, config.vocabulary))
        : prefixed('cond_stage_model.model.', openClip(config.openClip!, config.vocabulary))
  const schedule = ['betas', 'alphas_cumprod', 'sqrt_alphas_cumprod'].map((name) => ({ name, shape: [1000] }))
  return [...unet(config), ...vae(config), ...towers, ...schedule]
}
