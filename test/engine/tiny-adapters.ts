import { join } from 'node:path'
import { modelShape } from '../../models/adapters/shape.ts'
import type { ModelShape } from '../../models/adapters/types.ts'
import { toBytes, writeAdapter, writeTensors, type AdapterNotes, type LayerDelta } from '../../models/adapters/write.ts'
import { readParts } from '../../models/checkpoint/graphs.ts'
import { readManifest } from '../../main/engine/model-folder.ts'
import { numbers } from '../unit/pipeline/fake-adapters.ts'

// Small adapter files for the model of tiny-model.ts, as kohya's tools and others write them.

export const shapeOf = async (model: string): Promise<ModelShape> =>
  modelShape(readManifest(model).family, await readParts(model))

type Options = { rank?: number; size?: number; text?: boolean; convs?: boolean; notes?: AdapterNotes }

/** A LoRA with random factors on the layers that kohya's trainer changes by itself. */
export async function writeLora(file: string, shape: ModelShape, seed: number, options: Options = {}): Promise<string> {
  const { rank = 4, size = 0.5, text = true, convs = false, notes } = options
  const layers: LayerDelta[] = []
  for (const target of ['unet', 'text_encoder', 'text_encoder_2'] as const) {
    if (target !== 'unet' && !text) continue
    for (const [path, { weight }] of shape.layers[target] ?? []) {
      const isLinear = /attn\d\.to_|\.ff\.net\.|self_attn\.|\.mlp\.fc/.test(path)
      const isConv = convs && weight.length === 4 && weight[2] === 3
      if (!isLinear && !isConv) continue
      const k = weight.slice(1).reduce((product, dim) => product * dim, 1)
      const scale = size / Math.sqrt(k)
      layers.push({
        ...{ target, path, weight, rank },
        down: numbers(rank * k, seed + layers.length).map((value) => value * scale),
        up: numbers(weight[0] * rank, seed * 3 + layers.length),
      })
    }
  }
  await writeAdapter(file, layers, { shape, storage: 'F32', notes })
  return file
}

/** Tensors of any names, float32. */
export async function writeFloats(
  file: string,
  tensors: Record<string, { shape: number[]; data: Float32Array }>,
  metadata: Record<string, string> = {},
): Promise<string> {
  const list = Object.entries(tensors).map(([name, { shape, data }]) => ({
    ...{ name, shape, dtype: 'F32' as const },
    bytes: toBytes(data, 'F32'),
  }))
  await writeTensors(file, list, metadata)
  return file
}

/** An embedding of `count` vectors for the word that its file is called, as A1111 and kohya write it. */
export async function writeEmbedding(folder: string, word: string, shape: ModelShape, count: number): Promise<string> {
  const width = shape.layers.text_encoder!.get('text_model.embeddings.token_embedding')!.weight[1]
  const data = numbers(count * width, 9)
  return writeFloats(join(folder, `${word}.safetensors`), { emb_params: { shape: [count, width], data } })
}

/** A guidance-distillation adapter; its output projection is `out` times random numbers, 0 as before training. */
export async function writeGuidance(file: string, shape: ModelShape, out: number, width = 8): Promise<string> {
  const layers = shape.layers.unet!
  const temb = layers.get('time_embedding.linear_2')!.weight[0]
  const sites = [...layers.keys()].flatMap((path) => /^(.*\.attn2)\.to_q$/.exec(path)?.[1] ?? [])
  const text = layers.get(`${sites[0]}.to_k`)!.weight[1]
  const tensors: Record<string, { shape: number[]; data: Float32Array }> = {}
  let seed = 0
  const put = (name: string, dims: number[], scale = 1) => {
    const count = dims.reduce((product, dim) => product * dim, 1)
    tensors[name] = { shape: dims, data: numbers(count, ++seed).map((value) => value * scale) }
  }
  put('guidance.frequencies', [width])
  put('guidance.phases', [width])
  put('guidance.linear_1.weight', [4 * width, width])
  put('guidance.linear_1.bias', [4 * width])
  put('guidance.linear_2.weight', [width, 4 * width])
  put('guidance.linear_2.bias', [width])
  put('guidance.norm.weight', [width], 20) // so that one token among 79 shows
  put('guidance.norm.bias', [width])
  put('time.weight', [width, temb], 0.1)
  put('text.weight', [width, text], 0.1)
  for (const site of sites) {
    const c = layers.get(`${site}.to_q`)!.weight[0]
    put(`sites.${site}.to_q.weight`, [width, c], 0.1)
    put(`sites.${site}.to_k.weight`, [width, width])
    put(`sites.${site}.to_v.weight`, [width, width])
    put(`sites.${site}.to_out.weight`, [c, width], out)
    put(`sites.${site}.to_out.bias`, [c], out)
  }
  const notes = { vignette_kind: 'guidance', width: String(width), guidance_min: '1', guidance_max: '8' }
  return writeFloats(file, tensors, notes)
}
