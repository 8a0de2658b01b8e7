import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { modelShape } from '../../models/adapters/shape.ts'
import type { ModelShape } from '../../models/adapters/types.ts'
import { readPartConfigs } from '../../models/checkpoint/graphs.ts'
import { VignetteError } from '../../models/errors.ts'
import { families } from '../../models/family.ts'
import type { ModelManifest } from '../../models/manifest.ts'
import type { OwnDefaults } from '../../preload/contract/models.ts'
import type { Log } from './log.ts'

/** `manifest` has the person's own defaults in it; `original` is what lies on the disk. */
export type InstalledModel = { folder: string; manifest: ModelManifest; original: ModelManifest }

/** The id of the model that comes with Vignette. */
export const starterId = 'starter'

/** The models in one folder, each a folder with model.json in it. Read anew each time: people move folders about. */
export class InstalledModels {
  readonly #folder: string
  readonly #log: Log
  /** Settled once the model that comes with Vignette is in place, or could not be put there. */
  readonly #starter: Promise<void>
  #isReady = false
  /** Found by building the networks, which takes a moment: by id and source. */
  readonly #shapes = new Map<string, Promise<ModelShape>>()

  readonly #ownDefaults: (id: string) => OwnDefaults

  constructor(options: {
    folder: string
    installStarter: () => Promise<unknown>
    log: Log
    /** What the person has set for a model instead of what it says itself. */
    ownDefaults?: (id: string) => OwnDefaults
  }) {
    this.#folder = options.folder
    this.#ownDefaults = options.ownDefaults ?? (() => ({}))
    this.#log = options.log
    this.#starter = options
      .installStarter()
      .catch((error: unknown) => this.#log.error('the starter model could not be put in place', error))
      .then(() => void (this.#isReady = true))
  }

  /** Where all of them lie. */
  get folder(): string {
    return this.#folder
  }

  get isReady(): boolean {
    return this.#isReady
  }

  /** Resolves when the list is complete. */
  ready(): Promise<void> {
    return this.#starter
  }

  async list(): Promise<InstalledModel[]> {
    const names = await readdir(this.#folder).catch(() => [])
    const found = await Promise.all(names.filter((name) => !name.startsWith('.')).map((name) => this.#read(name)))
    return found.filter((model) => model !== undefined).sort((a, b) => a.manifest.name.localeCompare(b.manifest.name))
  }

  /** Throws `model-missing`. One that is not there yet may be the starter of the very first start: waits for that. */
  async find(id: string): Promise<InstalledModel> {
    const early = (await this.list()).find(({ manifest }) => manifest.id === id)
    if (early) return early
    await this.#starter
    const models = await this.list()
    const model = models.find(({ manifest }) => manifest.id === id)
    if (model) return model
    const others = models.map(({ manifest }) => `"${manifest.name}"`).join(', ')
    throw new VignetteError('model-missing', `The model "${id}" is not installed.`, {
      hint: others === '' ? `Put its folder into ${this.#folder}.` : `Pick another: ${others}.`,
    })
  }

  /** What adapters can change of a model; undefined when it is not installed. Waits as `find` does. */
  async shapeOf(id: string): Promise<{ key: string; shape: ModelShape } | undefined> {
    const model = await this.find(id).catch(() => undefined)
    if (!model) return undefined
    const { manifest, folder } = model
    const key = `${id} ${manifest.source.sha256.slice(0, 16)}`
    const shape =
      this.#shapes.get(key) ?? readPartConfigs(folder).then((configs) => modelShape(manifest.family, configs))
    this.#shapes.set(key, shape)
    return { key, shape: await shape }
  }

  async #read(name: string): Promise<InstalledModel | undefined> {
    const folder = join(this.#folder, name)
    try {
      const original = JSON.parse(await readFile(join(folder, 'model.json'), 'utf8')) as ModelManifest
      if (!(original.family in families) || original.id === undefined) return undefined // of a later version
      return { folder, original, manifest: withDefaults(original, this.#ownDefaults(original.id)) }
    } catch {
      return undefined // not a model: a stray file, or one that is just being copied
    }
  }
}

function withDefaults(manifest: ModelManifest, own: OwnDefaults): ModelManifest {
  const { width = manifest.nativeSize.width, height = manifest.nativeSize.height, ...defaults } = own
  return { ...manifest, nativeSize: { width, height }, defaults: { ...manifest.defaults, ...defaults } }
}
