import { cp, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { InstalledModels } from '../../main/app/installed-models.ts'
import { ModelLibrary } from '../../main/app/model-library.ts'
import { ModelNotes } from '../../main/app/model-notes.ts'
import { forkChild } from '../../main/engine/client.ts'
import type { AppEvent } from '../../preload/contract.ts'
import type { ModelTask } from '../../preload/contract/models.ts'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'
import { scratchFolder } from './tiny-model.ts'

// The models of the application, with the real process that works on them and tiny random checkpoints.

const entry = fileURLToPath(new URL('../../main/engine/model-worker.ts', import.meta.url))
const loader = fileURLToPath(new URL('../../node_modules/tsx/dist/loader.mjs', import.meta.url))
let scratch: string
let checkpoint: string
let home: string
let library: ModelLibrary
let events: AppEvent[]
const log = { info: () => {}, warn: () => {}, error: () => {} }

beforeAll(async () => {
  scratch = await scratchFolder('model-library')
  checkpoint = join(scratch, 'dreamy.safetensors')
  await writeRandomCheckpoint(checkpoint, tinyLdmConfigs.sd15, { seed: 5 })
})
afterEach(() => library?.close())
afterAll(() => rm(scratch, { recursive: true, force: true }))

async function open(folder: string): Promise<ModelLibrary> {
  library?.close()
  home = folder
  events = []
  await mkdir(join(home, 'models'), { recursive: true })
  const notes = await ModelNotes.open(join(home, 'models.json'))
  const models = new InstalledModels({
    folder: join(home, 'models'),
    installStarter: () => Promise.resolve(),
    ownDefaults: (id) => notes.ownDefaults(id),
    log,
  })
  library = await ModelLibrary.open({
    ...{ models, notes, log },
    engine: { unload: () => {} },
    spawn: () => forkChild(entry, { execArgv: ['--import', loader] }),
    workFile: join(home, 'imports.json'),
    machine: () => ({ budgetBytes: 8e9 }),
    findFiles: async () => [{ file: checkpoint, root: scratch, bytes: 1 }],
    emit: (event) => events.push(event),
  })
  return library
}
const fresh = (name: string) => open(join(scratch, name))
const task = (id: string) => library.tasks().find((one) => one.id === id)!
const ended = (id: string) =>
  vi.waitFor(
    () => {
      expect(['done', 'failed', 'cancelled']).toContain(task(id).status)
      return task(id)
    },
    { timeout: 280_000 },
  )
const phases = (id: string) =>
  events.flatMap((event): ModelTask[] => (event.type === 'models:task' && event.task.id === id ? [event.task] : []))
const shown = async () => (await readdir(join(home, 'models'))).filter((name) => !name.startsWith('.'))

describe('a file that is offered', () => {
  test('is looked at before anything is copied', async () => {
    const [candidate] = await (await fresh('look')).inspect([checkpoint])
    expect(candidate).toMatchObject({
      source: checkpoint,
      fileName: 'dreamy.safetensors',
      card: { kind: 'checkpoint', name: 'dreamy', familyName: 'Stable Diffusion 1.x', storage: 'fp16' },
    })
    expect(candidate.card!.fourBitBytes).toBeLessThan(candidate.card!.neededBytes)
    expect(await shown()).toEqual([])
    // A folder with nothing else in it stands for the file.
    await mkdir(join(scratch, 'download'))
    await cp(checkpoint, join(scratch, 'download', 'a.safetensors'))
    expect((await library.inspect([join(scratch, 'download')]))[0].source).toMatch(/a\.safetensors$/)
  })

  test.each([
    ['cut off', 'file-unreadable', async (file: string) => (await cp(checkpoint, file), truncate(file, 100_000))],
    ['a web page', 'file-unreadable', (file: string) => writeFile(file, '<!doctype html><p>Sign in')],
    ['a ZIP archive', 'file-unreadable', (file: string) => writeFile(file, 'PK\u0003\u0004rest of the archive')],
    ['a pickle', 'checkpoint-unsafe', (file: string) => writeFile(file, Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x2e]))],
    ['not there', 'file-unreadable', () => Promise.resolve()],
  ])('and is %s is refused with a hint', async (name, code, make) => {
    await fresh(`refuse ${name}`)
    const file = join(scratch, `${name}.safetensors`)
    await make(file)
    const [candidate] = await library.inspect([file])
    expect(candidate).toMatchObject({ error: { code, message: expect.any(String), hint: expect.any(String) } })
    expect(candidate.card).toBeUndefined()
  })
})

describe('an import', () => {
  test('becomes a model that is whole, known by its file, and verified', async () => {
    await fresh('import')
    const done = await ended(await library.import(checkpoint, 'Dreamy 5', false))
    expect(done).toMatchObject({ status: 'done', model: 'dreamy-5', fraction: 1 })
    const [model] = await library.records()
    expect(model).toMatchObject({
      ...{ id: 'dreamy-5', name: 'Dreamy 5', state: 'ready', isDefault: true, isStarter: false },
      check: { state: 'recorded' },
    })
    expect((await library.inspect([checkpoint]))[0].known).toEqual({ id: 'dreamy-5', name: 'Dreamy 5' })
    await ended(await library.verify('dreamy-5'))
    expect((await library.records())[0].check.state).toBe('verified')
    // One byte is different.
    const weights = join(home, 'models', 'dreamy-5', 'vae.safetensors')
    const bytes = await readFile(weights)
    bytes[bytes.length - 1] ^= 1
    await writeFile(weights, bytes)
    await ended(await library.verify('dreamy-5'))
    expect((await library.records())[0]).toMatchObject({ state: 'damaged', check: { state: 'changed' } })
    // The same name again does not touch the first.
    expect(await ended(await library.import(checkpoint, 'Dreamy 5', false))).toMatchObject({ model: 'dreamy-5-2' })
  })

  test('that is cancelled leaves nothing', async () => {
    await fresh('cancel')
    const id = await library.import(checkpoint, 'Dreamy', false)
    await library.cancelTask(id)
    expect(await ended(id)).toMatchObject({ status: 'cancelled' })
    expect(await readdir(join(home, 'models'))).toEqual([])
    library.forgetTask(id)
    expect(library.tasks()).toEqual([])
  })

  test('that the application ended in goes on at the next start; a half model never has a name', async () => {
    await fresh('resume')
    await library.import(checkpoint, 'Dreamy', false)
    await vi.waitFor(async () => expect(await readdir(join(home, 'models'))).toContain('.dreamy.partial'), {
      timeout: 20_000,
      interval: 5,
    })
    library.close()
    expect(await shown()).toEqual([])
    await open(home)
    const [{ id, isResumed }] = library.tasks()
    expect(isResumed).toBe(true)
    expect(await ended(id)).toMatchObject({ status: 'done' })
    expect(await shown()).toEqual(['dreamy'])
    expect((await library.records())[0]).toMatchObject({ state: 'ready' })
    await open(home)
    expect(library.tasks()).toEqual([])
  })

  test('of a folder of our own is a copy with graphs of our own', async () => {
    await fresh('copy')
    await ended(await library.import(checkpoint, 'Dreamy', false))
    const source = join(home, 'models', 'dreamy')
    const graph = await readFile(join(source, 'unet.onnx'))
    const elsewhere = join(scratch, 'usb-stick')
    await cp(source, elsewhere, { recursive: true })
    await writeFile(join(elsewhere, 'unet.onnx'), 'something else')
    expect((await library.inspect([elsewhere]))[0].card).toMatchObject({ kind: 'vignette', name: 'Dreamy' })
    expect(await ended(await library.import(elsewhere, 'Copied', false))).toMatchObject({ status: 'done' })
    expect((await readFile(join(home, 'models', 'copied', 'unet.onnx'))).equals(graph)).toBe(true)
    expect((await library.records()).find(({ id }) => id === 'copied')).toMatchObject({
      ...{ name: 'Copied', state: 'ready', check: { state: 'recorded' } },
    })
    await ended(await library.verify('copied'))
    expect((await library.records()).find(({ id }) => id === 'copied')!.check.state).toBe('verified')
  })

  test('in four bits passes by the whole one, which does not stay', { timeout: 300_000 }, async () => {
    await fresh('four-bit')
    const id = await library.import(checkpoint, 'Small', true)
    expect(await ended(id)).toMatchObject({ status: 'done' })
    expect(new Set(phases(id).map(({ phase }) => phase))).toContain('quantizing')
    expect(await readdir(join(home, 'models'))).toEqual(['small'])
    expect((await library.records())[0]).toMatchObject({ storage: 'int4', state: 'ready' })
  })
})

describe('a model', () => {
  test('starts forms with what the person set, which can be written to a file and taken back', async () => {
    await fresh('defaults')
    await ended(await library.import(checkpoint, 'Dreamy', false))
    await library.saveDefaults('dreamy', { steps: 12, width: 256, height: 320 })
    const [own] = await library.records()
    expect(own).toMatchObject({ nativeWidth: 256, nativeHeight: 320, defaults: { steps: 12 } })
    expect(own.factoryDefaults.steps).not.toBe(12)
    const file = join(home, 'defaults.json')
    await library.exportDefaults('dreamy', file)
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      ...{ kind: 'vignette-model-defaults', model: { id: 'dreamy' }, defaults: { steps: 12, width: 256, height: 320 } },
    })
    await open(home)
    expect((await library.records())[0].defaults.steps).toBe(12)
    await library.saveDefaults('dreamy', {})
    const [back] = await library.records()
    expect(back.defaults.steps).toBe(back.factoryDefaults.steps)
  })

  test('can be hidden, be the default, and go to the bin and back', async () => {
    await fresh('bin')
    for (const name of ['One', 'Two']) await ended(await library.import(checkpoint, name, false))
    await library.setDefault('two')
    expect((await library.records()).map(({ id, isDefault }) => [id, isDefault])).toEqual([
      ['two', true],
      ['one', false],
    ])
    await library.hide('one', true)
    expect((await library.records())[1].isHidden).toBe(true)
    const undoId = await library.remove('two')
    expect((await library.records()).map(({ id }) => id)).toEqual(['one'])
    expect(await library.undoRemove(undoId)).toBe('two')
    expect((await library.records())[0]).toMatchObject({ id: 'two', isDefault: true, state: 'ready' })
    await expect(library.remove('starter')).rejects.toMatchObject({ hint: expect.stringContaining('Hide') })
  })
})
