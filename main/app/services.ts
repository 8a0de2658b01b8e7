import { join } from 'node:path'
import { modelHome, vignetteHome } from '../../models/home.ts'
import { starterAdapters } from '../../models/starter/install.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { RecalledRecipe } from '../../preload/contract/images.ts'
import type { DeviceReport } from '../../preload/contract/models.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { PromptReader, spareMemoryBytes, totalMemoryBytes, type EngineClient } from '../engine/client.ts'
import { PictureClient, type PictureChild } from '../engine/picture-client.ts'
import { ChildReader, readerThread } from './adapter-child.ts'
import { noteUses } from './adapter-use.ts'
import { AdapterSets } from './adapter-sets.ts'
import { AdapterLibrary, adapterPaths } from './adapters.ts'
import type { Handlers } from './answer.ts'
import { engineSettings, firstEngineSettings } from './engine-settings.ts'
import { createHandlers } from './handlers.ts'
import { noDesktop, type Desktop } from './handlers/app.ts'
import { InstalledModels } from './installed-models.ts'
import { Jobs, type NewJob } from './jobs.ts'
import { Library } from './library.ts'
import { checkpointsOf } from './linked-roots.ts'
import { createLog, type Log } from './log.ts'
import { clearModelBin } from './model-bin.ts'
import { machineOf, ModelLibrary } from './model-library.ts'
import { ModelNotes } from './model-notes.ts'
import type { ModelWorker } from './model-work.ts'
import { Network } from './network.ts'
import { Pace } from './pace.ts'
import { PromptLists } from './prompt-lists.ts'
import { Prompts } from './prompts.ts'
import { freeBytesAt } from './queue-failures.ts'
import { resolveRecipe } from './recall.ts'
import { Replays } from './replays.ts'
import { openSettings, type SettingsStore } from './settings.ts'
import { clearBin, Storage } from './storage.ts'

export { vignetteHome }

export type ServiceOptions = {
  version: string
  engine: Pick<EngineClient, 'run' | 'cancel' | 'device' | 'stop' | 'configure' | 'unload' | 'onModel'>
  reveal: (file: string) => void
  /** What only the window system can do; nothing of it without one. */
  desktop?: Partial<Desktop>
  /** The system's own panels. */
  dialogs: Dialogs
  /** Tells every open window. */
  emit: (event: AppEvent) => void
  /** Everything of the person's lies below it. */
  home?: string
  modelsFolder?: string
  /** Puts the model that comes with Vignette in place. */
  install: (modelsFolder: string) => Promise<unknown>
  /** The built file of the thread that counts prompts. */
  promptWorker: string
  /** Starts the process that reads and shrinks picture files. */
  pictureWorker: () => PictureChild
  /** The built file of the thread that reads adapters. */
  adapterWorker: string
  /** A process for work on models, e.g. an import. */
  modelWorker: () => ModelWorker
  /** Adapters that come with Vignette. */
  starterAdapters?: string
  /** All that waited is made. */
  onIdle?: () => void
}

export type Dialogs = {
  /** Empty when the person thought better of it. */
  choose(what: 'files' | 'folder' | 'settings' | 'pictures' | 'models' | 'model-folder'): Promise<string[]>
  /** Where a new file is to lie; `name` is what it is called unless the person says otherwise. */
  saveAs(name: string): Promise<string | undefined>
}

/** Where pictures lie, by the id in their address. */
export type PictureFiles = {
  fileOf(id: string): string | undefined
  /** A small version, which may have to be made first. */
  thumbOf(id: string): Promise<string | undefined>
}

export type Services = {
  handlers: Handlers
  log: Log
  settings: SettingsStore
  library: Library
  jobs: Jobs
  /** All pictures that the window can show: saved ones, and those of adapters. */
  pictures: PictureFiles
  /** Starts the engine to learn what it runs on; the first picture then starts sooner. */
  warmUp(): Promise<void>
  /** Leaves the queue as it is for the next start, and ends the engine. */
  close(): Promise<void>
}

/** The one place where the parts of the application are put together. */
export async function createServices(options: ServiceOptions): Promise<Services> {
  const { version, engine, reveal, dialogs, emit, home = vignetteHome(), modelsFolder = modelHome(), install } = options
  const startedAt = Date.now()
  const logFile = join(home, 'logs', 'vignette.log')
  const log = createLog(logFile)
  log.info(`Vignette ${version} starts; Node ${process.versions.node} on ${process.platform} ${process.arch}`)
  const settings = await openSettings(join(home, 'settings.json'))
  if (settings.dropped.length > 0) log.warn(`settings that could not be read: ${settings.dropped.join(', ')}`)
  settings.onChange((all, keys) => {
    emit({ type: 'settings:changed', settings: all })
    const changed = engineSettings(all, keys)
    if (!changed) return
    const isOtherDevice = keys.includes('device')
    void engine.configure(changed).then(() => (isOtherDevice ? askDevice() : undefined))
  })
  await engine.configure(firstEngineSettings(settings.get()))
  const network = await Network.open({
    settings,
    file: join(home, 'network.json'),
    emit: (entries) => emit({ type: 'network:changed', entries }),
    log,
  })
  const storage = new Storage({
    home,
    modelsFolder,
    emit: (state) => emit({ type: 'storage:changed', ...state }),
    log,
  })
  const adapterBin = adapterPaths(home).bin
  const pictures = new PictureClient(options.pictureWorker)
  const library = await Library.open({
    folder: join(home, 'pictures'),
    indexFile: join(home, 'library.db'),
    pictures,
    log,
    emit,
  })
  const modelNotes = await ModelNotes.open(join(home, 'models.json'))
  const models = new InstalledModels({
    folder: modelsFolder,
    installStarter: () => install(modelsFolder),
    ownDefaults: (id) => modelNotes.ownDefaults(id),
    log,
  })
  const adapters = await AdapterLibrary.open({
    ...adapterPaths(home),
    version,
    starterFolder: options.starterAdapters ?? starterAdapters(),
    shapeOf: (id) => models.shapeOf(id),
    reader: new ChildReader(() => readerThread(options.adapterWorker)),
    shrink: (file, target) => pictures.thumb(file, target),
    picturesWith(hash) {
      const search = { search: `adapter:${hash}`, isBin: false, order: 'newest' as const }
      const { images, total } = library.query(search, 0, 8)
      return { count: total, newest: images.map(({ id, thumb, prompt }) => ({ id, url: thumb, prompt })) }
    },
    emit,
    log,
  })
  const sets = await AdapterSets.open({
    file: join(home, 'adapter-sets.json'),
    adapters,
    onChange: (all) => emit({ type: 'sets:changed', sets: all }),
  })
  const promptReader = new PromptReader(options.promptWorker)
  const prompts = new Prompts({ lists: new PromptLists(join(home, 'lists')), reader: promptReader })
  let device: DeviceReport | undefined

  async function askDevice(): Promise<void> {
    try {
      device = await engine.device()
      log.info(`the engine runs on ${device.provider}: ${device.name}. ${device.reason}`)
      emit({ type: 'engine:device', device })
    } catch (error) {
      // The first job starts it again, and says so to the person if it cannot.
      log.warn('the engine did not start', error)
    }
  }

  const modelLibrary = await ModelLibrary.open({
    ...{ models, engine, emit, log },
    notes: modelNotes,
    spawn: options.modelWorker,
    workFile: join(home, 'imports.json'),
    machine: () => {
      const { memoryPercent = settingDefaults.memoryPercent } = settings.get()
      return machineOf(device, memoryPercent, totalMemoryBytes(), spareMemoryBytes())
    },
    findFiles: () => checkpointsOf(adapters.roots.list()),
  })
  engine.onModel((model) => void modelLibrary.loaded(model))
  const picturesFolder = join(home, 'pictures')
  const noteUse = noteUses(adapters.notebook, log)
  const pace = await Pace.open(join(home, 'pace.json'))
  const jobs = await Jobs.open({
    file: join(home, 'queue.jsonl'),
    checkpointFolder: join(home, 'checkpoints'),
    engine,
    library,
    pace,
    folderOf: async (id) => (await models.find(id)).folder,
    adapterFileOf: (id) => adapters.fileOf(id),
    settings: () => settings.get(),
    madeBy: ({ request: { prompt, seed }, startedAt = Infinity }) =>
      library.list(20).find((one) => one.seed === seed && one.prompt === prompt && one.createdAt >= startedAt)?.id,
    emit(event) {
      emit(event)
      replays.apply(event)
      noteUse(event)
    },
    onImage: (image) => emit({ type: 'image:added', image }),
    onCrash(message) {
      emit({ type: 'engine:crashed', message })
      void askDevice() // the new engine may have left a failing graphics card
    },
    ...(options.onIdle ? { onIdle: options.onIdle } : {}),
    freeBytes: () => freeBytesAt(picturesFolder),
    log,
  })
  const resolve = (recipe: RecalledRecipe) =>
    resolveRecipe(recipe, {
      models,
      adapters,
      pictureOf: async ({ name, sha256 }) => (sha256 ? library.byContent(sha256, name) : undefined),
    })
  const replays = new Replays({
    ...{ library, pictures, emit },
    async recall(id) {
      const { recipe } = await library.recipeOf(id)
      return recipe && resolve(recipe)
    },
    async addJob(request) {
      const newJob = { request: request as NewJob['request'] }
      const { jobIds } = await jobs.add([newJob], { place: 'front', source: 'test', label: 'Replay' })
      return jobIds[0]
    },
  })
  void models.ready().then(() => modelLibrary.changed())
  // Beside the start, not before it: with a new index every picture is read.
  library.reconcile().then(
    // Of many, the gallery asks for those it shows.
    (added) => added.slice(0, 200).forEach((image) => emit({ type: 'image:added', image })),
    (error: unknown) => log.error('the library could not be compared with its folder', error),
  )

  const { binDays = settingDefaults.binDays } = settings.get()
  if (binDays !== 'never') {
    void clearBin(adapterBin, binDays)
    library.emptyBin(binDays).catch((error: unknown) => log.warn('the bin could not be cleared', error))
    void clearModelBin(modelsFolder, binDays)
  }

  return {
    handlers: createHandlers({
      ...{ home, logFile, network, storage, desktop: { ...noDesktop, ...options.desktop } },
      async emptyBin() {
        await clearBin(adapterBin, 0)
        await clearModelBin(modelsFolder, 0)
        await library.emptyBin()
      },
      modelLibrary,
      unloadModel: () => engine.unload(),
      ...{ pictures, replays, resolve },
      ...{ version, startedAt, jobs, pace, library, models, adapters, sets, settings, prompts, reveal, dialogs },
      device: () => device,
    }),
    log,
    settings,
    library,
    jobs,
    pictures: {
      fileOf: (id) => adapters.thumbs.fileOf(id) ?? library.fileOf(id),
      thumbOf: async (id) => (adapters.thumbs.has(id) ? adapters.thumbs.smallOf(id) : library.thumbOf(id)),
    },
    warmUp: askDevice,
    async close() {
      modelLibrary.close()
      await jobs.close()
      await engine.stop()
      await adapters.close()
      await promptReader.close()
      await library.close()
      pictures.close()
    },
  }
}
