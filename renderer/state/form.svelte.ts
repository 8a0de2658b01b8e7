import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { ModelRecord } from '../../preload/contract/models.ts'
import type { StudioForm } from '../../preload/contract/settings.ts'
import { limits, type SamplerName, type ScheduleName } from '../../preload/limits.ts'
import { AdaptersState } from './adapters.svelte.ts'
import { shapeOf, sizeOf, snapSide, type ShapeName, type Size } from './shapes.ts'
import { SlotsState } from './slots.svelte.ts'

/** Used until a model is there. */
const fallback = {
  native: { width: 512, height: 512 },
  steps: 20,
  guidanceScale: 5,
  sampler: 'euler',
  schedule: 'normal',
}

/**
 * What the person has set in the Studio. A value that was never touched follows the model: it is undefined here, and
 * the fields show the model's own default.
 */
export class FormState {
  prompt = $state('')
  negativePrompt = $state('')
  model = $state('starter')
  count = $state(1)
  seedMode = $state<'random' | 'fixed' | 'increment'>('random')
  seed = $state(0)
  #size = $state.raw<Size | undefined>()
  #isCustom = $state(false)
  #steps = $state<number | undefined>()
  #guidanceScale = $state<number | undefined>()
  #sampler = $state<SamplerName | undefined>()
  #schedule = $state<ScheduleName | undefined>()
  models = $state.raw<ModelRecord[]>([])
  readonly slots = new SlotsState()
  readonly #adapters: AdaptersState

  constructor(adapters = new AdaptersState()) {
    this.#adapters = adapters
  }

  readonly modelRecord = $derived(this.models.find((model) => model.id === this.model) ?? this.models.at(0))
  readonly native = $derived(
    this.modelRecord ? { width: this.modelRecord.nativeWidth, height: this.modelRecord.nativeHeight } : fallback.native,
  )
  readonly size = $derived(this.#size ?? this.native)
  readonly shape = $derived<ShapeName>(this.#isCustom ? 'custom' : shapeOf(this.size, this.native))
  readonly canGenerate = $derived(this.prompt.trim() !== '')

  /** What an adapter for few steps needs: it takes the place of the model's own values. */
  readonly preset = $derived(
    this.slots.all
      .filter(({ isOn, weight }) => isOn && weight !== 0)
      .map(({ id }) => this.#adapters.find(id)?.preset)
      .find((preset) => preset !== undefined),
  )
  /** The person has set something that the preset is not made for. */
  readonly isOffPreset = $derived(
    this.preset !== undefined &&
      ((this.#steps ?? this.preset.steps) !== this.preset.steps ||
        (this.#guidanceScale ?? this.preset.guidanceScale) !== this.preset.guidanceScale ||
        (this.#sampler ?? this.preset.sampler) !== this.preset.sampler ||
        this.#schedule !== undefined),
  )

  /** Forgets what was touched, so that adapter and model decide again. */
  followModel(): void {
    this.#steps = undefined
    this.#guidanceScale = undefined
    this.#sampler = undefined
    this.#schedule = undefined
  }

  get steps(): number {
    return this.#steps ?? this.preset?.steps ?? this.modelRecord?.defaults.steps ?? fallback.steps
  }
  set steps(value: number) {
    this.#steps = value
  }

  get guidanceScale(): number {
    return (
      this.#guidanceScale ??
      this.preset?.guidanceScale ??
      this.modelRecord?.defaults.guidanceScale ??
      fallback.guidanceScale
    )
  }
  set guidanceScale(value: number) {
    this.#guidanceScale = value
  }

  get sampler(): SamplerName {
    return (
      this.#sampler ?? ((this.preset?.sampler ?? this.modelRecord?.defaults.sampler ?? fallback.sampler) as SamplerName)
    )
  }
  set sampler(value: SamplerName) {
    this.#sampler = value
  }

  get schedule(): ScheduleName {
    return (
      this.#schedule ??
      ((this.preset?.schedule ?? this.modelRecord?.defaults.schedule ?? fallback.schedule) as ScheduleName)
    )
  }
  set schedule(value: ScheduleName) {
    this.#schedule = value
  }

  setShape(shape: ShapeName): void {
    this.#isCustom = shape === 'custom'
    if (shape !== 'custom') this.#size = sizeOf(shape, this.native)
    else this.#size = this.size
  }

  /** Snaps to a size that the networks can make. */
  setSide(side: 'width' | 'height', value: number): void {
    this.#isCustom = true
    this.#size = { ...this.size, [side]: snapSide(value) }
  }

  /** A new seed that stays. */
  rollSeed(): void {
    this.seed = Math.floor(Math.random() * (limits.maxSeed + 1))
    this.seedMode = 'fixed'
  }

  keepSeed(seed: number): void {
    this.seed = seed
    this.seedMode = 'fixed'
  }

  /** Without guidance the second, negative, pass is not made: the text is kept but has no effect. */
  readonly negativeReason = $derived(this.guidanceScale === 1 ? 'Has no effect at guidance scale 1.' : undefined)

  /** What was not touched is left out: main fills it in from the model, also when that is not known here yet. */
  request(): GenerateRequestInput {
    const { seedMode, seed, ...rest } = this.snapshot()
    delete rest.slots
    const adapters = this.slots.uses()
    return {
      ...rest,
      prompt: this.prompt,
      model: this.modelRecord?.id ?? this.model,
      ...(seedMode !== 'random' ? { seed } : {}),
      ...(adapters.length > 0 ? { adapters } : {}),
    }
  }

  /** What is remembered: only what was touched, so that the rest keeps following the model. */
  snapshot(): StudioForm {
    return {
      prompt: this.prompt,
      negativePrompt: this.negativePrompt,
      model: this.model,
      count: this.count,
      seedMode: this.seedMode,
      seed: this.seed,
      ...(this.#size ? { width: this.#size.width, height: this.#size.height } : {}),
      ...(this.#steps === undefined ? {} : { steps: this.#steps }),
      ...(this.#guidanceScale === undefined ? {} : { guidanceScale: this.#guidanceScale }),
      ...(this.#sampler === undefined ? {} : { sampler: this.#sampler }),
      ...(this.#schedule === undefined ? {} : { schedule: this.#schedule }),
      ...(this.slots.all.length > 0 ? { slots: this.slots.all } : {}),
    }
  }

  restore(form: StudioForm): void {
    this.prompt = form.prompt ?? this.prompt
    this.negativePrompt = form.negativePrompt ?? ''
    this.model = form.model ?? this.model
    this.count = form.count ?? 1
    this.seedMode = form.seedMode ?? 'random'
    this.seed = form.seed ?? 0
    this.#size = form.width && form.height ? { width: form.width, height: form.height } : undefined
    this.#steps = form.steps
    this.#guidanceScale = form.guidanceScale
    this.#sampler = form.sampler
    this.#schedule = form.schedule
    this.slots.restore(form.slots ?? [])
  }
}
