import * as z from 'zod'
import { ModelRecord, OwnDefaults } from '../../preload/contract/models.ts'
import { JsonFile, readJson } from './files.ts'

const Stored = z.object({
  version: z.literal(1),
  /** The model a new form starts with. */
  defaultModel: z.string().optional(),
  hidden: z.array(z.string()).default([]),
  defaults: z.record(z.string(), OwnDefaults).default({}),
  checks: z.record(z.string(), ModelRecord.shape.check).default({}),
})
type Stored = z.infer<typeof Stored>

/** What the person has made of their models: kept beside the models, not in them, so that a folder can be replaced. */
export class ModelNotes {
  readonly #file: JsonFile<Stored>
  readonly #stored: Stored

  private constructor(path: string, stored: Stored) {
    this.#stored = stored
    this.#file = new JsonFile(path, () => this.#stored)
  }

  static async open(path: string): Promise<ModelNotes> {
    return new ModelNotes(path, (await readJson(path, Stored)) ?? { version: 1, hidden: [], defaults: {}, checks: {} })
  }

  get defaultModel(): string | undefined {
    return this.#stored.defaultModel
  }

  isHidden(id: string): boolean {
    return this.#stored.hidden.includes(id)
  }

  ownDefaults(id: string): OwnDefaults {
    return this.#stored.defaults[id] ?? {}
  }

  check(id: string): ModelRecord['check'] {
    return this.#stored.checks[id] ?? { state: 'unchecked' }
  }

  setDefaultModel(id: string): Promise<void> {
    this.#stored.defaultModel = id
    return this.#file.save()
  }

  setHidden(id: string, isHidden: boolean): Promise<void> {
    const others = this.#stored.hidden.filter((one) => one !== id)
    this.#stored.hidden = isHidden ? [...others, id] : others
    return this.#file.save()
  }

  saveDefaults(id: string, defaults: OwnDefaults): Promise<void> {
    if (Object.keys(defaults).length === 0) delete this.#stored.defaults[id]
    else this.#stored.defaults[id] = defaults
    return this.#file.save()
  }

  setCheck(id: string, check: ModelRecord['check']): Promise<void> {
    this.#stored.checks[id] = check
    return this.#file.save()
  }
}
