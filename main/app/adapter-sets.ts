import { randomUUID } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { basename } from 'node:path'
import * as z from 'zod'
import { VignetteError } from '../../models/errors.ts'
import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import { AdapterSet, SetSlot } from '../../preload/contract/sets.ts'
import type { StudioSlot } from '../../preload/contract/settings.ts'
import { limits } from '../../preload/limits.ts'
import { recipeOf } from '../export/metadata.ts'
import type { AdapterLibrary } from './adapters.ts'
import { JsonFile, readJson, writeAtomic } from './files.ts'

/** Part of the library of adapters that sets need. */
type Adapters = Pick<AdapterLibrary, 'list' | 'hashOf'>

const Stored = z.object({ version: z.literal(1), sets: z.array(AdapterSet) })

/** What a `.vgset` file holds: names and hashes, no path and no id of this computer. */
const SetFile = z.object({
  kind: z.literal('vignette-adapter-set'),
  version: z.literal(1),
  name: AdapterSet.shape.name,
  slots: z
    .array(SetSlot.omit({ id: true }))
    .min(1)
    .max(limits.maxAdapters),
})

const maxFileBytes = 1 << 20

/** Named strips of adapters. The file is written before anybody is told. */
export class AdapterSets {
  #sets: AdapterSet[]
  readonly #file: JsonFile<z.infer<typeof Stored>>
  readonly #adapters: Adapters
  readonly #onChange: (sets: AdapterSet[]) => void

  private constructor(file: string, sets: AdapterSet[], adapters: Adapters, onChange: (sets: AdapterSet[]) => void) {
    this.#sets = sets
    this.#file = new JsonFile(file, () => ({ version: 1, sets: this.#sets }))
    this.#adapters = adapters
    this.#onChange = onChange
  }

  static async open(options: {
    file: string
    adapters: Adapters
    onChange: (sets: AdapterSet[]) => void
  }): Promise<AdapterSets> {
    const stored = await readJson(options.file, Stored)
    return new AdapterSets(options.file, stored?.sets ?? [], options.adapters, options.onChange)
  }

  /** By name, as people look for them. */
  list(): AdapterSet[] {
    return [...this.#sets].sort((a, b) => a.name.localeCompare(b.name) || a.createdAt - b.createdAt)
  }

  /** Keeps the slots with what finds their adapters again on another computer. */
  async save(name: string, slots: readonly StudioSlot[], id: string = randomUUID(), model = ''): Promise<AdapterSet> {
    const records = this.#adapters.list(model).adapters
    const kept = await Promise.all(slots.map((slot) => this.#kept(slot, records)))
    const createdAt = this.#sets.find((set) => set.id === id)?.createdAt ?? Date.now()
    return this.#put({ id, name, createdAt, slots: kept })
  }

  async #kept({ isAutomatic: _, ...slot }: StudioSlot, records: readonly AdapterRecord[]): Promise<SetSlot> {
    const record = records.find(({ id }) => id === slot.id)
    // The file may be gone: its name is all that is known then.
    const sha256 = await this.#adapters.hashOf(slot.id).catch(() => undefined)
    return {
      ...slot,
      fileName: record?.fileName ?? basename(slot.id),
      triggers: record?.triggers ?? [],
      ...(sha256 === undefined ? {} : { sha256 }),
    }
  }

  async rename(id: string, name: string): Promise<AdapterSet> {
    return this.#put({ ...this.#find(id), name })
  }

  async remove(id: string): Promise<AdapterSet> {
    const set = this.#find(id)
    await this.#replace(this.#sets.filter((one) => one !== set))
    return set
  }

  async restore(set: AdapterSet): Promise<void> {
    await this.#put(set)
  }

  /** The set as slots of this library: by content, else by id or file name where the content is not known. */
  async slots(
    id: string,
    model: string,
  ): Promise<{ slots: StudioSlot[]; missing: { name: string; sha256?: string }[] }> {
    const found = await this.#resolve(this.#find(id).slots, model)
    const slots: StudioSlot[] = []
    const missing: { name: string; sha256?: string }[] = []
    for (const { slot, record } of found) {
      const { name, sha256 } = slot
      if (record) slots.push(slotOf(slot, record))
      else missing.push({ name, ...(sha256 === undefined ? {} : { sha256 }) })
    }
    return { slots, missing }
  }

  async write(id: string, file: string): Promise<void> {
    const { name, slots } = this.#find(id)
    const content: z.infer<typeof SetFile> = {
      ...{ kind: 'vignette-adapter-set', version: 1, name },
      slots: slots.map(({ id: _, ...slot }) => slot),
    }
    await writeAtomic(file, JSON.stringify(content, null, 1))
  }

  nameOf(id: string): string {
    return this.#find(id).name
  }

  /** Takes a `.vgset` file into the list, under its own name. */
  async read(file: string): Promise<AdapterSet> {
    const refused = (hint: string) =>
      new VignetteError('file-unreadable', `"${basename(file)}" is no set of adapters.`, { hint })
    const { size } = await stat(file)
    if (size > maxFileBytes) throw refused('Sets are small files that end in .vgset.')
    let raw: unknown
    try {
      raw = JSON.parse(await readFile(file, 'utf8'))
    } catch {
      throw refused('It is damaged, or something else. Sets are files that end in .vgset.')
    }
    const parsed = SetFile.safeParse(raw)
    if (!parsed.success) throw refused('It may come from a later version of Vignette, or be something else.')
    const { name, slots } = parsed.data
    return this.#put({ id: randomUUID(), name, createdAt: Date.now(), slots })
  }

  /** What a picture of ours says it was made with. Guidance and words for the prompt are no part of a strip. */
  async readPicture(file: string, name: string, model: string): Promise<AdapterSet> {
    const references = recipeOf(await readFile(file))?.adapters ?? []
    const slots = references
      .filter(({ isGuidance, isEmbedding }) => !isGuidance && !isEmbedding)
      .map((reference): SetSlot => {
        const { name: fileName, sha256, weight, textWeight, start, end, ramp } = reference
        const own = textWeight === weight ? {} : { textWeight }
        const called = fileName.replace(/\.safetensors$/i, '')
        return {
          name: called,
          fileName,
          sha256,
          role: 'style',
          isOn: true,
          weight,
          ...own,
          start,
          end,
          ramp,
          triggers: [],
        }
      })
    if (slots.length === 0)
      throw new VignetteError('bad-request', 'This picture was made without adapters.', {
        hint: 'Pick one that was made with some.',
      })
    const resolved = (await this.#resolve(slots, model)).map(({ slot, record }) =>
      record ? { ...slot, id: record.id, name: record.name, role: record.role, triggers: record.triggers } : slot,
    )
    return this.#put({ id: randomUUID(), name, createdAt: Date.now(), slots: resolved })
  }

  async #resolve(slots: readonly SetSlot[], model: string): Promise<{ slot: SetSlot; record?: AdapterRecord }[]> {
    const records = this.#adapters.list(model).adapters
    const hashes = new Map<string, Promise<string | undefined>>()
    const hashOf = ({ id }: AdapterRecord) => {
      const known = hashes.get(id) ?? this.#adapters.hashOf(id).catch(() => undefined)
      hashes.set(id, known)
      return known
    }
    const recordOf = async ({ id, fileName, sha256 }: SetSlot): Promise<AdapterRecord | undefined> => {
      const likely = records.filter((record) => record.id === id || record.fileName === fileName)
      if (sha256 === undefined) return likely.find((record) => record.id === id) ?? likely[0]
      // Most are where they were or are called the same; reading every file for its hash is the last resort.
      for (const record of [...likely, ...records.filter((one) => !likely.includes(one))])
        if ((await hashOf(record)) === sha256) return record
      return undefined
    }
    return Promise.all(slots.map(async (slot) => ({ slot, record: await recordOf(slot) })))
  }

  #find(id: string): AdapterSet {
    const set = this.#sets.find((one) => one.id === id)
    if (!set) throw new VignetteError('bad-request', 'This set is not there any more.')
    return set
  }

  async #put(set: AdapterSet): Promise<AdapterSet> {
    await this.#replace([...this.#sets.filter(({ id }) => id !== set.id), set])
    return set
  }

  async #replace(sets: AdapterSet[]): Promise<void> {
    const before = this.#sets
    this.#sets = sets
    try {
      await this.#file.save()
    } catch (error) {
      this.#sets = before
      throw error
    }
    this.#onChange(this.list())
  }
}

/** A slot of this library: without what only helps to find the file. */
function slotOf({ fileName: _, triggers: __, sha256: ___, ...slot }: SetSlot, { id, name }: AdapterRecord): StudioSlot {
  return { ...slot, id, name }
}
