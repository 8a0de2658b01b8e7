import { stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { readAbout } from '../../models/checkpoint/about.ts'
import { reportError, VignetteError } from '../../models/errors.ts'
import { families } from '../../models/family.ts'
import type {
  DeviceReport,
  FoundModel,
  ModelCandidate,
  ModelRecord,
  ModelTask,
  OwnDefaults,
} from '../../preload/contract/models.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { EngineClient, EngineModel } from '../engine/client.ts'
import type { ModelLook } from '../engine/protocol.ts'
import { writeAtomic } from './files.ts'
import { starterId, type InstalledModel, type InstalledModels } from './installed-models.ts'
import type { Log } from './log.ts'
import { binModel, unbinModel } from './model-bin.ts'
import { filesOf, lookAtModel, memoryOf, type Machine } from './model-health.ts'
import { ModelJobs } from './model-jobs.ts'
import type { ModelNotes } from './model-notes.ts'
import { startModelWork, type ModelWorker } from './model-work.ts'

export type ModelLibraryOptions = {
  models: InstalledModels
  notes: ModelNotes
  engine: Pick<EngineClient, 'unload'>
  /** A process for work on models. */
  spawn: () => ModelWorker
  /** Where unfinished work is noted. */
  workFile: string
  /** What there is on this computer at the moment. */
  machine: () => Machine
  /** Model files in linked folders of other programs. */
  findFiles: () => Promise<{ file: string; root: string; bytes: number }[]>
  emit: (event: AppEvent) => void
  log: Log
}

/** What the Models screen shows and does: the installed models, what the person made of them, and work in the background. */
export class ModelLibrary {
  readonly #options: ModelLibraryOptions
  #jobs!: ModelJobs
  #loaded: EngineModel | undefined
  #found: FoundModel[] = []

  private constructor(options: ModelLibraryOptions) {
    this.#options = options
  }

  static async open(options: ModelLibraryOptions): Promise<ModelLibrary> {
    const library = new ModelLibrary(options)
    const { workFile: file, spawn, emit, log } = options
    library.#jobs = await ModelJobs.open({
      ...{ file, spawn, log },
      emit: (task) => emit({ type: 'models:task', task }),
      async onChange({ work, model }, value) {
        const state = work.type === 'verify' ? (value as ModelRecord['check']['state']) : 'recorded'
        await options.notes.setCheck(model, { state, at: Date.now() })
        await library.changed()
      },
    })
    return library
  }

  /** The models as the window knows them, the one that new forms start with first. */
  async records(): Promise<ModelRecord[]> {
    const { models, notes } = this.#options
    const all = await models.list()
    const records = await Promise.all(all.map((model) => this.#record(model)))
    const first = records.find(({ id }) => id === notes.defaultModel) ?? records.find(({ isStarter }) => isStarter)
    return records
      .map((record) => ({ ...record, isDefault: record === (first ?? records[0]) }))
      .sort((a, b) => Number(b.isDefault) - Number(a.isDefault))
  }

  tasks(): ModelTask[] {
    return this.#jobs.list()
  }

  found(): FoundModel[] {
    return this.#found
  }

  /** Looks for model files in linked folders again. */
  async lookForFiles(): Promise<void> {
    const { models, findFiles, emit, log } = this.#options
    try {
      const [files, installed] = await Promise.all([findFiles(), models.list()])
      this.#found = files.map(({ file, root, bytes }) => ({
        ...{ file, root, bytes, name: basename(file) },
        importedAs: madeFrom(installed, basename(file), bytes)?.manifest.name,
      }))
      emit({ type: 'models:found', found: this.#found })
    } catch (error) {
      log.warn('linked folders could not be searched for models', error)
    }
  }

  /** Something about the models is different: everybody hears of it. */
  async changed(): Promise<void> {
    this.#options.emit({ type: 'models:changed', models: await this.records() })
    if (this.#found.length > 0) await this.lookForFiles()
  }

  /** The engine has another model in memory, or none. */
  async loaded(model: EngineModel | undefined): Promise<void> {
    this.#loaded = model
    await this.changed()
  }

  async inspect(sources: readonly string[]): Promise<ModelCandidate[]> {
    const { models, spawn } = this.#options
    const installed = await models.list()
    const candidates: ModelCandidate[] = []
    for (const source of sources) {
      try {
        const { result } = startModelWork(spawn, { type: 'inspect', source, modelsFolder: models.folder })
        const look = (await result)!.value as ModelLook
        const { name, bytes } = { name: basename(look.source), bytes: look.card!.bytes }
        const twin = madeFrom(installed, name, bytes)
        const known = twin && { id: twin.manifest.id, name: twin.manifest.name }
        candidates.push({ ...look, fileName: name, ...(known ? { known } : {}) })
      } catch (error) {
        candidates.push({ source, fileName: basename(source), error: reportError(error) })
      }
    }
    return candidates
  }

  async import(source: string, name: string, isFourBit: boolean): Promise<string> {
    const id = await this.#freeId(name)
    const folder = join(this.#options.models.folder, id)
    return this.#jobs.add({ type: 'import', source, folder, name, isFourBit }, name, id)
  }

  async makeFourBit(model: string): Promise<string> {
    const { folder, manifest } = await this.#options.models.find(model)
    const name = `${manifest.name} (4 bit)`
    const id = await this.#freeId(`${manifest.id}-4bit`)
    const target = join(this.#options.models.folder, id)
    return this.#jobs.add({ type: 'four-bit', model: folder, folder: target, name }, name, id)
  }

  async verify(model: string): Promise<string> {
    const { folder, manifest } = await this.#options.models.find(model)
    return this.#jobs.add({ type: 'verify', folder }, manifest.name, model)
  }

  cancelTask(id: string): Promise<void> {
    return this.#jobs.cancel(id)
  }

  forgetTask(id: string): void {
    if (this.#jobs.forget(id)) this.#options.emit({ type: 'models:taskGone', id })
  }

  async setDefault(model: string): Promise<void> {
    await this.#options.models.find(model)
    await this.#options.notes.setDefaultModel(model)
    await this.changed()
  }

  async hide(model: string, isHidden: boolean): Promise<void> {
    await this.#options.notes.setHidden(model, isHidden)
    await this.changed()
  }

  async remove(model: string): Promise<string> {
    const { models, engine } = this.#options
    if (model === starterId) {
      throw new VignetteError('bad-request', 'The model that comes with Vignette cannot be removed.', {
        hint: 'Hide it instead: it then shows up in no list but this one.',
      })
    }
    const { folder } = await models.find(model)
    if (this.#loaded?.folder === folder) engine.unload()
    const undoId = await binModel(models.folder, folder)
    await this.changed()
    return undoId
  }

  async undoRemove(undoId: string): Promise<string | undefined> {
    const name = await unbinModel(this.#options.models.folder, undoId)
    await this.changed()
    return name
  }

  async saveDefaults(model: string, defaults: OwnDefaults): Promise<void> {
    const { manifest } = await this.#options.models.find(model)
    const multiple = manifest.latents.spatialFactor
    for (const side of ['width', 'height'] as const) {
      const value = defaults[side]
      if (value !== undefined && value % multiple !== 0) {
        throw new VignetteError('bad-request', `${manifest.name} draws in multiples of ${multiple} pixels.`, {
          hint: `Try ${Math.round(value / multiple) * multiple} as ${side}.`,
        })
      }
    }
    await this.#options.notes.saveDefaults(model, defaults)
    await this.changed()
  }

  /** Writes what a model starts a form with, for another computer or to look at. */
  async exportDefaults(model: string, file: string): Promise<void> {
    const { manifest } = await this.#options.models.find(model)
    const { width, height } = manifest.nativeSize
    const kept = {
      kind: 'vignette-model-defaults',
      version: 1,
      model: { id: manifest.id, name: manifest.name, family: manifest.family, sha256: manifest.source.sha256 },
      defaults: { ...manifest.defaults, width, height },
    }
    await writeAtomic(file, `${JSON.stringify(kept, null, 2)}\n`)
  }

  close(): void {
    this.#jobs.close()
  }

  async #record({ folder, manifest, original }: InstalledModel): Promise<Omit<ModelRecord, 'isDefault'>> {
    const { notes, machine } = this.#options
    const { id, name, family, nativeSize, weightBytes, defaults, storage, source } = manifest
    const files = await filesOf(folder)
    const health = await lookAtModel(folder, original, files)
    const about = await readAbout(folder)
    const here = this.#loaded?.folder === folder ? this.#loaded : undefined
    const memory = memoryOf(original, health.weights, machine())
    const check = notes.check(id)
    const state =
      health.state !== 'ready'
        ? health.state
        : check.state === 'changed'
          ? 'damaged'
          : memory.fit === 'too-big'
            ? 'too-big'
            : here?.state === 'loading'
              ? 'loading'
              : 'ready'
    return {
      ...{ id, name, family, weightBytes, defaults, storage, folder, memory, state, check },
      familyName: families[family].name,
      nativeWidth: nativeSize.width,
      nativeHeight: nativeSize.height,
      diskBytes: [...files.values()].reduce((sum, size) => sum + size, 0),
      problem: problemOf(state, health.problem, memory),
      isLoaded: here !== undefined,
      isStarter: id === starterId,
      isHidden: notes.isHidden(id),
      ownDefaults: notes.ownDefaults(id),
      factoryDefaults: { ...original.defaults, ...original.nativeSize },
      licence: about?.licence,
      author: about?.author,
      source,
    }
  }

  /** A folder name among the models that nothing has, and no import will have. */
  async #freeId(name: string): Promise<string> {
    const stem =
      name
        .normalize('NFKD')
        .replace(/[^\w.-]+/g, '-')
        .replace(/^[-.]+|[-.]+$/g, '')
        .slice(0, 60)
        .toLowerCase() || 'model'
    const taken = this.#jobs.taken()
    for (let count = 1; ; count++) {
      const id = count === 1 ? stem : `${stem}-${count}`
      const isThere = await stat(join(this.#options.models.folder, id)).then(
        () => true,
        () => false,
      )
      if (!isThere && !taken.includes(id) && id !== starterId) return id
    }
  }
}

/** The model that was made from a file of this name and size: very likely the same. */
function madeFrom(models: readonly InstalledModel[], file: string, bytes: number): InstalledModel | undefined {
  return models.find(({ original }) => original.source.file === file && original.source.bytes === bytes)
}

function problemOf(
  state: ModelRecord['state'],
  problem: string | undefined,
  { neededBytes }: ModelRecord['memory'],
): string | undefined {
  if (problem !== undefined) return problem
  if (state === 'damaged') return 'Its weights are not those that were put there: at least one byte is different.'
  if (state !== 'too-big') return undefined
  return `It needs about ${(neededBytes / 1e9).toFixed(1)} GB of memory, more than Vignette may use on this computer.`
}

/** What `ModelLibraryOptions.machine` is made of. */
export function machineOf(
  device: DeviceReport | undefined,
  memoryPercent: number,
  totalBytes: number,
  spareBytes?: number,
): Machine {
  return {
    device,
    budgetBytes: (memoryPercent / 100) * totalBytes,
    ...(spareBytes !== undefined ? { spareBytes } : {}),
  }
}
