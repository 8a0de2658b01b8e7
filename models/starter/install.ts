import { cp, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { convertCheckpoint } from '../checkpoint/convert.ts'
import { writeGraphs } from '../checkpoint/graphs.ts'
import { sha256OfSource } from '../checkpoint/hash.ts'
import { isFile } from '../checkpoint/safetensors.ts'
import { tryLock } from '../checkpoint/work-folder.ts'
import { VignetteError } from '../errors.ts'
import { unpackEmbedding } from './unpack.ts'

export type InstallOptions = {
  /** The packed model; found next to this file, or above the bundle, when left out. */
  packed?: string
  onProgress?: (fraction: number) => void
  signal?: AbortSignal
}

/** Remembers which packed model an installed one was made from. */
const stampName = 'packed.sha256'
const pollMs = 200

/**
 * Installs the model that comes with Vignette as `<modelsFolder>/starter` and returns that folder. When it is there
 * already this only compares hashes; it is made anew when the packed model changed or files are missing. Two processes
 * that start at once make it once: the second waits.
 */
export async function installStarter(modelsFolder: string, options: InstallOptions = {}): Promise<string> {
  const packed = options.packed ?? (await findPacked())
  const target = join(modelsFolder, 'starter')
  const files = await filesOf(packed)
  const sha256 = await sha256OfSource(packed, files, () => undefined, options.signal)
  for (;;) {
    if (await isCurrent(target, sha256)) return target
    const unlock = await tryLock(join(modelsFolder, 'starter.install'))
    if (!unlock) {
      options.signal?.throwIfAborted()
      await new Promise((resolve) => setTimeout(resolve, pollMs))
      continue
    }
    try {
      if (!(await isCurrent(target, sha256))) await install(packed, target, sha256, options)
      return target
    } finally {
      await unlock()
    }
  }
}

async function isCurrent(target: string, sha256: string): Promise<boolean> {
  const stamp = await readFile(join(target, stampName), 'utf8').catch(() => '')
  if (stamp.trim() !== sha256) return false
  const needed = ['model.json', 'parts.json', 'unet.safetensors', 'vae.safetensors', 'text_encoder.safetensors']
  if (!(await Promise.all(needed.map((name) => isFile(join(target, name))))).every(Boolean)) return false
  await writeGraphs(target) // a newer Vignette may draw the same weights with better graphs
  return true
}

async function install(packed: string, target: string, sha256: string, { onProgress, signal }: InstallOptions): Promise<void> {
  // The last part of the path becomes the source's name in the manifest.
  const scratch = join(dirname(target), `.unpacked-${process.pid}`)
  const folder = join(scratch, 'starter')
  try {
    await rm(scratch, { recursive: true, force: true })
    await mkdir(folder, { recursive: true })
    for (const file of await filesOf(packed)) await cp(file, join(folder, relative(packed, file)))
    await unpackEmbedding(join(packed, 'text_encoder'), join(folder, 'text_encoder', 'model.safetensors'))
    await convertCheckpoint(folder, target, { name: 'Starter', replace: true, signal, onProgress: ({ fraction }) => onProgress?.(fraction) })
    // Written after the folder is in place: until then the model counts as not installed and is simply made again.
    await writeFile(join(target, stampName), `${sha256}\n`)
  } finally {
    await rm(scratch, { recursive: true, force: true })
  }
}

/** The model's own files: configurations and weights, without the code, notes and adapters that lie beside them. */
async function filesOf(packed: string): Promise<string[]> {
  const out: string[] = []
  for (const entry of await readdir(packed, { withFileTypes: true })) {
    if (entry.name === 'adapters') continue
    if (entry.isDirectory()) out.push(...(await filesOf(join(packed, entry.name))))
    else if (/\.(json|safetensors)$/.test(entry.name)) out.push(join(packed, entry.name))
  }
  return out.sort()
}

/** Looks upwards from this file, which a bundle moves: in the tree it is here, from out/main it is two levels up. */
async function findPacked(): Promise<string> {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    for (const candidate of [folder, join(folder, 'models', 'starter')]) {
      if (await isFile(join(candidate, 'unet', 'config.json'))) return candidate
    }
    if (folder === dirname(folder)) break
  }
  throw new VignetteError('model-missing', 'This copy of Vignette comes without its starter model.', {
    hint: 'Add a model of your own: npm run convert -- FILE.safetensors',
  })
}

/** The folder of the adapters that come with the starter; it may not be there. */
export function starterAdapters(): string {
  return join(dirname(fileURLToPath(import.meta.url)), 'adapters')
}
