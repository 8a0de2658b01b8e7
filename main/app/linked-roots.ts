import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { basename, extname, join, resolve } from 'node:path'
import * as z from 'zod'
import { VignetteError } from '../../models/errors.ts'
import type { LinkedKind, RootReport } from '../../preload/contract/adapters.ts'
import { readExtraPaths } from './extra-paths.ts'
import { JsonFile, readJson } from './files.ts'

// Folders of other programs that the person has linked. They are read where they lie: nothing in them is ever moved,
// renamed or written, and nothing of ours is put beside their files.

/** A folder of one kind in a root, and what lies in it. */
type KindFolder = { kind: LinkedKind; path: string }

/** A model file of a linked root, for the Models screen. */
export type FoundCheckpoint = { file: string; root: string; bytes: number; modifiedAt: number }

/** Where programs keep what, below their root. Names are compared without case: disks differ in it. */
const layouts: { layout: RootReport['layout']; marks: string[]; folders: Record<string, LinkedKind> }[] = [
  {
    layout: 'comfyui',
    marks: ['models/loras', 'models/checkpoints', 'extra_model_paths.yaml'],
    folders: {
      'models/loras': 'adapters',
      'models/checkpoints': 'checkpoints',
      'models/embeddings': 'embeddings',
      'models/vae': 'vae',
      'models/controlnet': 'controlnet',
    },
  },
  {
    layout: 'a1111',
    marks: ['models/lora', 'models/lycoris', 'models/stable-diffusion'],
    folders: {
      'models/lora': 'adapters',
      'models/lycoris': 'adapters',
      'models/stable-diffusion': 'checkpoints',
      embeddings: 'embeddings',
      'models/vae': 'vae',
      'models/controlnet': 'controlnet',
    },
  },
]

/** What kinds are called in extra_model_paths.yaml. */
const extraKinds: Record<string, LinkedKind> = {
  loras: 'adapters',
  checkpoints: 'checkpoints',
  embeddings: 'embeddings',
  vae: 'vae',
  controlnet: 'controlnet',
}
const extraNames = ['extra_model_paths.yaml', 'extra_model_paths.yml']

const maxDepth = 8
const maxFiles = 100_000
const maxExtraBytes = 1 << 20
/** Pickles count too: what cannot be read is said, not left out in silence. */
const weightEndings = ['.safetensors', '.ckpt', '.pt', '.pth', '.bin']

/** What a folder holds, before it is linked: its layout, and how many files of each kind. Throws when it is none. */
export async function lookAtRoot(folder: string, signal?: AbortSignal): Promise<RootReport> {
  const path = resolve(folder)
  const found = await stat(path).catch(() => undefined)
  if (!found?.isDirectory()) {
    throw new VignetteError('file-unreadable', `"${basename(path)}" is not a folder that can be read.`, {
      hint: 'Choose the folder that holds your adapters, or the top folder of the other program.',
    })
  }
  const { layout, folders } = await foldersOf(path)
  const counts = new Map<LinkedKind, { count: number; unreadable: number; bytes: number }>()
  for (const { kind, path: inside } of folders) {
    const sum = counts.get(kind) ?? { count: 0, unreadable: 0, bytes: 0 }
    for await (const file of weightFilesIn(inside, signal)) {
      if (extname(file).toLowerCase() === '.safetensors') sum.count++
      else sum.unreadable++
      sum.bytes += (await stat(file).catch(() => undefined))?.size ?? 0
    }
    counts.set(kind, sum)
  }
  return {
    folder: path,
    name: basename(path),
    layout,
    kinds: [...counts].map(([kind, sum]) => ({ kind, ...sum })),
    folders: folders.map((one) => ({ ...one })),
  }
}

/** The folders of a root by their kind. One without a known layout is a folder of adapters as a whole. */
async function foldersOf(root: string): Promise<{ layout: RootReport['layout']; folders: KindFolder[] }> {
  for (const { layout, marks, folders } of layouts) {
    const isOne = (await Promise.all(marks.map((mark) => insensitive(root, mark)))).some((path) => path !== undefined)
    if (!isOne) continue
    const own: KindFolder[] = []
    for (const [inside, kind] of Object.entries(folders)) {
      const path = await insensitive(root, inside)
      if (path !== undefined && (await isFolder(path))) own.push({ kind, path })
    }
    const all = layout === 'comfyui' ? [...own, ...(await extraFolders(root))] : own
    return { layout, folders: await withoutRepeats(all) }
  }
  return { layout: 'plain', folders: [{ kind: 'adapters', path: root }] }
}

/** `models/lora` as it is written on this disk. */
async function insensitive(root: string, inside: string): Promise<string | undefined> {
  let path = root
  for (const part of inside.split('/')) {
    const names = await readdir(path).catch((): string[] => [])
    const name = names.includes(part) ? part : names.find((other) => other.toLowerCase() === part)
    if (name === undefined) return undefined
    path = join(path, name)
  }
  return path
}

async function extraFolders(root: string): Promise<KindFolder[]> {
  const found: KindFolder[] = []
  for (const name of extraNames) {
    const file = join(root, name)
    const { size } = await stat(file).catch(() => ({ size: Infinity }))
    if (size > maxExtraBytes) continue
    for (const { kind, path } of readExtraPaths(await readFile(file, 'utf8'), root)) {
      const known = extraKinds[kind]
      if (known && (await isFolder(path))) found.push({ kind: known, path })
    }
  }
  return found
}

/** Two names of one folder, a link on the disk say, would list everything twice. */
async function withoutRepeats(folders: readonly KindFolder[]): Promise<KindFolder[]> {
  const seen = new Set<string>()
  const kept: KindFolder[] = []
  for (const folder of folders) {
    const real = await realpath(folder.path).catch(() => folder.path)
    if (seen.has(real)) continue
    seen.add(real)
    kept.push(folder)
  }
  return kept
}

const isFolder = (path: string) =>
  stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  )

/** Every file of weights below a folder, level by level, up to a bound: a root may be a whole disk by mistake. */
async function* weightFilesIn(folder: string, signal?: AbortSignal): AsyncGenerator<string> {
  let folders = [folder]
  let count = 0
  for (let depth = 0; depth < maxDepth && folders.length > 0; depth++) {
    const next: string[] = []
    for (const path of folders) {
      signal?.throwIfAborted()
      for (const entry of await readdir(path, { withFileTypes: true }).catch(() => [])) {
        if (entry.name.startsWith('.')) continue
        if (entry.isDirectory()) next.push(join(path, entry.name))
        else if (weightEndings.includes(extname(entry.name).toLowerCase())) {
          if (++count > maxFiles) return
          yield join(path, entry.name)
        }
      }
    }
    folders = next
  }
}

/** The model files of linked roots. They are not read: that is the import's work. */
export async function checkpointsOf(roots: readonly string[], signal?: AbortSignal): Promise<FoundCheckpoint[]> {
  const found: FoundCheckpoint[] = []
  for (const root of roots) {
    const { folders } = await foldersOf(resolve(root))
    for (const { kind, path } of folders) {
      if (kind !== 'checkpoints') continue
      for await (const file of weightFilesIn(path, signal)) {
        const own = await stat(file).catch(() => undefined)
        if (own?.isFile()) found.push({ file, root, bytes: own.size, modifiedAt: Math.round(own.mtimeMs) })
      }
    }
  }
  return found
}

/** The folders in linked roots that adapters lie in; embeddings are adapters of the text encoder. */
export async function adapterFoldersOf(roots: readonly string[]): Promise<string[]> {
  const found = await Promise.all(roots.map((root) => foldersOf(resolve(root))))
  return found.flatMap(({ folders }) =>
    folders.filter(({ kind }) => kind === 'adapters' || kind === 'embeddings').map(({ path }) => path),
  )
}

const StoredRoots = z.object({ version: z.literal(1), roots: z.array(z.string()) })

/** The roots that are linked, in a file of ours. */
export class LinkedRoots {
  readonly #file: JsonFile<z.infer<typeof StoredRoots>>
  readonly #onChange: () => void
  #roots: string[]

  private constructor(path: string, roots: string[], onChange: () => void) {
    this.#roots = roots
    this.#onChange = onChange
    this.#file = new JsonFile(path, () => ({ version: 1, roots: this.#roots }))
  }

  static async open(path: string, onChange: () => void = () => {}): Promise<LinkedRoots> {
    return new LinkedRoots(path, (await readJson(path, StoredRoots))?.roots ?? [], onChange)
  }

  list(): string[] {
    return [...this.#roots]
  }

  async add(folder: string): Promise<void> {
    const path = resolve(folder)
    if (!(await isFolder(path))) await lookAtRoot(path) // throws what is wrong with it
    if (!this.#roots.includes(path)) await this.#set([...this.#roots, path])
  }

  async remove(folder: string): Promise<void> {
    await this.#set(this.#roots.filter((root) => root !== resolve(folder)))
  }

  async #set(roots: string[]): Promise<void> {
    this.#roots = roots
    await this.#file.save()
    this.#onChange()
  }
}
