import { open, readFile, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { readSafetensors, type SafetensorsFile } from '../checkpoint/safetensors.ts'
import { fromSystemError, VignetteError } from '../errors.ts'
import { isRecord, parseJson } from './metadata.ts'

/** A header, and PEFT's configuration where that lies beside it. */
export type Opened = SafetensorsFile & { config?: Record<string, unknown> }

const maxConfigBytes = 2_000_000

/** Opens a file, or a folder as PEFT and diffusers write it. */
export async function openFile(path: string): Promise<Opened> {
  const found = await stat(path).catch((error: unknown) => {
    throw fromSystemError(error) ?? error
  })
  const file = found.isDirectory() ? await fileIn(path) : path
  await refusePicture(file)
  const opened = await readSafetensors(file)
  const beside = join(dirname(file), 'adapter_config.json')
  const isPeft = basename(file) === 'adapter_model.safetensors'
  const { size } = isPeft ? await stat(beside).catch(() => ({ size: 0 })) : { size: 0 }
  if (size === 0 || size > maxConfigBytes) return opened
  const config = parseJson(await readFile(beside, 'utf8').catch(() => undefined))
  return isRecord(config) ? { ...opened, config } : opened
}

async function fileIn(folder: string): Promise<string> {
  for (const name of ['adapter_model.safetensors', 'pytorch_lora_weights.safetensors']) {
    const file = join(folder, name)
    if (
      await stat(file).then(
        (found) => found.isFile(),
        () => false,
      )
    )
      return file
  }
  throw new VignetteError('file-unreadable', `${basename(folder)} is a folder without an adapter in it.`, {
    hint: 'Choose the .safetensors file, or a folder with adapter_model.safetensors.',
  })
}

/** Embeddings are also passed on inside pictures, as pixels or as text that a pickle is packed in. */
async function refusePicture(file: string): Promise<void> {
  const handle = await open(file, 'r')
  try {
    const start = Buffer.alloc(8192)
    const { bytesRead } = await handle.read(start, 0, start.length, 0)
    const text = start.toString('latin1', 0, bytesRead)
    const isPicture =
      text.startsWith('\x89PNG') ||
      text.startsWith('\xff\xd8\xff') ||
      (text.startsWith('RIFF') && text.startsWith('WEBP', 8))
    if (!isPicture) return
    const isEmbedding = text.includes('sd-ti-embedding')
    throw new VignetteError(
      'file-unreadable',
      isEmbedding
        ? `${basename(file)} is a picture with an embedding packed into it, which Vignette does not unpack.`
        : `${basename(file)} is a picture, not an adapter.`,
      { hint: isEmbedding ? 'Look for the .safetensors version of the embedding.' : 'Choose a .safetensors file.' },
    )
  } finally {
    await handle.close()
  }
}

/** Names that programs give to every file they write: there the folder says more. */
const generic = /^(adapter_model|pytorch_lora_weights|diffusion_pytorch_model|model|lora)$/

/** What a file is called. */
export function nameOf(file: string): string {
  const stem = basename(file).replace(/\.safetensors$/i, '')
  return (generic.test(stem) && basename(dirname(file))) || stem
}
