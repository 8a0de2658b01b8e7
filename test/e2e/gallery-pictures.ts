import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { recipeChunks, type Recipe } from '../../main/export/metadata.ts'
import { encodePng, type TextChunk } from '../../main/export/png.ts'
import { GenerateRequest } from '../../preload/contract/generate.ts'

/** A picture file of one colour with these texts in it. */
export async function writePicture(file: string, texts: readonly TextChunk[], size = 64): Promise<string> {
  const shade = [...file].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 200, 7)
  const data = new Uint8Array(size * size * 3).map((_, i) => (shade + 40 * (i % 3) + (i % size)) % 256)
  await mkdir(dirname(file), { recursive: true })
  await writeFile(file, encodePng({ data, width: size, height: size }, texts))
  return file
}

/** A recipe of the tiny model; `adapters` as they would have been applied. */
export function tinyRecipe(request: Partial<GenerateRequest>, adapters: Recipe['adapters'] = []): Recipe {
  const complete = GenerateRequest.parse({
    ...{ prompt: 'a boat', seed: 1, width: 128, height: 128, steps: 4, sampler: 'euler', schedule: 'normal' },
    ...{ guidanceScale: 3, model: 'tiny', ...request },
  })
  return {
    version: 1,
    app: 'Vignette test',
    engine: { runtime: '1', provider: 'cpu' },
    model: { id: 'tiny', name: 'Tiny', family: 'sd15', sha256: 'f'.repeat(64) },
    request: complete as Recipe['request'],
    pixelSha256: 'cd',
    ...(adapters.length > 0 ? { adapters } : {}),
  }
}

/** Puts a picture into the library of a home that is not open. `place` as `2026/01/02/00001`. */
export function placePicture(home: string, place: string, recipe: Recipe): Promise<string> {
  return writePicture(join(home, 'pictures', `${place}-${recipe.request.seed}.png`), recipeChunks(recipe))
}

/** What AUTOMATIC1111's web UI writes. */
export const a1111Text = [
  'a lighthouse in fog, (masterpiece:1.2)',
  'Negative prompt: crowd',
  'Steps: 22, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6.5, Seed: 987654, Size: 512x640, Model hash: 31e35c80fc, Model: paper, Hires upscaler: Latent, Version: v1.9.4',
].join('\n')

/** What ComfyUI writes: the graph that was run. */
export const comfyPrompt = JSON.stringify({
  '3': {
    class_type: 'KSampler',
    inputs: {
      ...{ seed: 4711, steps: 18, cfg: 7, sampler_name: 'euler_ancestral', scheduler: 'normal', denoise: 1 },
      ...{ model: ['4', 0], positive: ['6', 0], negative: ['7', 0], latent_image: ['5', 0] },
    },
  },
  '4': { class_type: 'CheckpointLoaderSimple', inputs: { ckpt_name: 'paper.safetensors' } },
  '5': { class_type: 'EmptyLatentImage', inputs: { width: 768, height: 512, batch_size: 1 } },
  '6': { class_type: 'CLIPTextEncode', inputs: { text: 'kites over a harbour', clip: ['4', 1] } },
  '7': { class_type: 'CLIPTextEncode', inputs: { text: 'rain', clip: ['4', 1] } },
  '8': { class_type: 'VAEDecode', inputs: { samples: ['3', 0], vae: ['4', 2] } },
  '9': { class_type: 'SaveImage', inputs: { images: ['8', 0], filename_prefix: 'kites' } },
})
