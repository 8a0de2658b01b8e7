import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import { recipeOf, type Recipe } from '../../main/export/metadata.ts'

export type SavedPicture = {
  file: string
  width: number
  height: number
  pixelSha256: string
  isUniform: boolean
  recipe: Recipe
}

/** Every picture file of a home folder, decoded by a decoder that is not ours, oldest first. */
export async function savedPictures(home: string): Promise<SavedPicture[]> {
  const folder = join(home, 'pictures')
  const names = await readdir(folder, { recursive: true }).catch(() => [])
  const files = names.filter((name) => name.endsWith('.png')).sort()
  return Promise.all(files.map((name) => readPicture(join(folder, name))))
}

async function readPicture(file: string): Promise<SavedPicture> {
  const bytes = await readFile(file)
  const { data, info } = await sharp(bytes).removeAlpha().raw().toBuffer({ resolveWithObject: true })
  const { channels } = await sharp(bytes).stats()
  const recipe = recipeOf(bytes)
  if (!recipe) throw new Error(`${file} carries no recipe`)
  return {
    file,
    width: info.width,
    height: info.height,
    pixelSha256: createHash('sha256').update(data).digest('hex'),
    isUniform: channels.every(({ stdev }) => stdev < 1),
    recipe,
  }
}
