import type { GenerateRequestInput } from '../../preload/contract/generate.ts'
import type { RecalledRecipe } from '../../preload/contract/images.ts'
import type { Capabilities, ModelRecord } from '../../preload/contract/models.ts'
import type { StudioForm, StudioSlot } from '../../preload/contract/settings.ts'
import { limits, type PaceName, type SamplerName, type ScheduleName, type SpeedName } from '../../preload/limits.ts'
import { t } from '../strings.ts'
import { AdaptersState } from './adapters.svelte.ts'
import { automaticSlots, paceSteps, phasesOf, planOf, speedAdapters, type GuidanceMode, type Phases } from './pace.ts'
import { recalled, type RecallGap, type RecallPart } from './recall.ts'
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

export type SeedMode = 'random' | 'fixed' | 'increment'

/**
 * What the person has set in the Studio. A value that was never touched follows the choice of speed, the adapters and
 * the model, in this order: it is undefined here, and the fields show what that gives.
 */
export class FormState {
  prompt = $state('')
  negativePrompt = $state('')
  model = $state('starter')
  count = $state(1)
  seedMode = $state<SeedMode>('random')
  seed = $state(0)
  clipSkip = $state(1)
  guidanceRescale = $state(0)
  preview = $state<'off' | 'fast'>('fast')
  strength = $state(0.6)
  /** The picture to start from: its file, and its id when it is one of the library. */
  source = $state.raw<{ file: string; id?: string } | undefined>()
  #size = $state.raw<Size | undefined>()
  #isCustomShape = $state(false)
  #typed = $state.raw<Partial<Record<'width' | 'height', number>>>({})
  #pace = $state<PaceName>('balanced')
  #steps = $state<number | undefined>()
  #guidanceMode = $state<GuidanceMode | undefined>()
  #guidanceScale = $state<number | undefined>()
  #isPhased = $state<boolean | undefined>()
  #phases = $state.raw<Phases | undefined>()
  #sampler = $state<SamplerName | undefined>()
  #schedule = $state<ScheduleName | undefined>()
  #speed = $state<SpeedName | undefined>()
  /** Noise levels of a picture that is made again; they go with its steps. */
  #levels = $state.raw<Pick<StudioForm, 'timesteps' | 'eta' | 'zeroTerminalSnr'>>({})
  models = $state.raw<ModelRecord[]>([])
  capabilities = $state.raw<Capabilities | undefined>()
  readonly slots = new SlotsState()
  readonly #adapters: AdaptersState
  readonly #usualSpeed: () => SpeedName

  constructor(adapters = new AdaptersState(), usualSpeed: () => SpeedName = () => 'exact') {
    this.#adapters = adapters
    this.#usualSpeed = usualSpeed
  }

  readonly modelRecord = $derived(
    this.models.find(({ id }) => id === this.model) ??
      this.models.find(({ isDefault }) => isDefault) ??
      this.models.at(0),
  )
  readonly native = $derived(
    this.modelRecord ? { width: this.modelRecord.nativeWidth, height: this.modelRecord.nativeHeight } : fallback.native,
  )
  readonly size = $derived(this.#size ?? this.native)
  readonly sizes = $derived(
    this.capabilities?.sizes ?? { min: limits.minSize, max: limits.maxSize, multiple: limits.sizeMultiple },
  )
  readonly shape = $derived<ShapeName>(this.#isCustomShape ? 'custom' : shapeOf(this.size, this.native))
  readonly canGenerate = $derived(this.prompt.trim() !== '')

  // What the choice of speed means here.
  readonly speedAdapters = $derived.by(() => speedAdapters(this.#adapters.all))
  readonly #modelSteps = $derived(this.modelRecord?.defaults.steps ?? fallback.steps)
  readonly #plan = $derived(planOf(this.#pace, this.#modelSteps, this.speedAdapters))
  readonly phases = $derived(phasesOf(this.speedAdapters.pair, this.#phases))
  readonly phaseReason = $derived(
    this.speedAdapters.pair
      ? undefined
      : t('Needs two adapters for this model, a slow and a fast one. The library has no such pair.'),
  )
  readonly #wantsPhases = $derived(
    this.speedAdapters.pair !== undefined && (this.#isPhased ?? (this.#guidanceMode ? false : this.#plan.isPhased)),
  )
  /** A pair may also have come with a recipe, or by hand. */
  readonly isPhased = $derived(
    this.#wantsPhases ||
      (['speed-slow', 'speed-fast'] as const).every((role) =>
        this.slots.all.some((slot) => slot.role === role && slot.isOn && slot.weight !== 0),
      ),
  )
  readonly #wanted = $derived({
    ...this.#plan,
    guidanceMode: this.#guidanceMode ?? this.#plan.guidanceMode,
    isPhased: this.#wantsPhases,
    // One for few steps comes with the choice of speed, and goes when guidance is chosen by hand.
    few: this.#guidanceMode || this.#isPhased !== undefined ? undefined : this.#plan.few,
  })

  /** What an adapter for few steps needs: it takes the place of the model's own values. */
  readonly preset = $derived(
    this.slots.all
      .filter(({ isOn, weight }) => isOn && weight !== 0)
      .map(({ id }) => this.#adapters.find(id)?.preset)
      .find((preset) => preset !== undefined),
  )
  readonly #distiller = $derived(
    this.slots.all.find(({ role, isOn, weight }) => role === 'guidance' && isOn && weight !== 0),
  )
  /** Distilled is also what draws in one pass because its adapters were taught so. */
  readonly guidanceMode = $derived<GuidanceMode>(
    this.#distiller || (this.preset && this.preset.guidanceScale <= 1) ? 'distilled' : 'classic',
  )
  readonly distilledReason = $derived.by(() => {
    if (this.speedAdapters.guidance || this.guidanceMode === 'distilled') return undefined
    return this.capabilities?.distilledGuidance === 'none'
      ? (this.capabilities.reasons.distilledGuidance ?? t('This model has no Distilled guidance.'))
      : t('Needs a guidance adapter for this model. The library has none.')
  })
  /** The scale is part of what the adapters were taught. */
  readonly scaleReason = $derived(
    this.guidanceMode === 'distilled' && !this.#distiller
      ? t('{name} draws with guidance built in.', { name: this.preset?.name ?? '' })
      : undefined,
  )
  readonly scaleRange = $derived.by<readonly [number, number]>(() => {
    const [least, most] = (this.#distiller && this.#adapters.find(this.#distiller.id)?.guidanceRange) ?? [1, 15]
    return [Math.max(1, least), Math.min(15, most)]
  })
  readonly stepsReason = $derived(
    this.isPhased && this.phases.isLocked
      ? t('The slow and the fast adapter are made for {slow} and {fast} steps.', {
          slow: this.phases.slow,
          fast: this.phases.fast,
        })
      : undefined,
  )

  /** Something of what a choice of speed sets was set by hand. */
  readonly isCustomPace = $derived(
    [this.#steps, this.#guidanceMode, this.#isPhased, this.#phases, this.#sampler, this.#schedule].some(
      (value) => value !== undefined,
    ) || this.slots.reserved.some(({ role, isAutomatic }) => role !== 'watermark' && !isAutomatic),
  )
  readonly pace = $derived(this.isCustomPace ? ('custom' as const) : this.#pace)
  /** What "Back to …" goes back to. */
  readonly paceBefore = $derived(this.#pace)

  /** Steps, guidance, sampler and the adapters for them, all at once. */
  setPace(pace: PaceName): void {
    this.#pace = pace
    this.followPace()
  }

  /** Forgets what was set by hand, so that speed, adapters and model decide again. */
  followPace(): void {
    this.#steps = this.#guidanceScale = this.#guidanceMode = undefined
    this.#isPhased = this.#phases = undefined
    this.#sampler = this.#schedule = undefined
    this.#levels = {}
    this.slots.all = this.slots.all.filter(
      ({ role }) => !['speed', 'speed-slow', 'speed-fast', 'guidance'].includes(role),
    )
    this.fitSlots()
  }

  /** The person has set something that the preset of an adapter is not made for. */
  readonly isOffPreset = $derived(
    this.preset !== undefined &&
      ((this.#steps ?? this.preset.steps) !== this.preset.steps ||
        (this.#guidanceScale ?? this.preset.guidanceScale) !== this.preset.guidanceScale ||
        (this.#sampler ?? this.preset.sampler) !== this.preset.sampler ||
        this.#schedule !== undefined),
  )

  /** Forgets steps, guidance and sampler, so that an adapter for few steps decides about them. */
  followModel(): void {
    this.#steps = this.#guidanceScale = this.#sampler = this.#schedule = undefined
    this.#levels = {}
  }

  /** Puts the adapters that speed and guidance need into their slots; again whenever the library or the model changes. */
  fitSlots(): void {
    const { scan, model } = this.#adapters
    // While headers are read a slot that was there before may only not be known yet.
    if (scan || model !== (this.modelRecord?.id ?? this.model)) return
    this.slots.setAutomatic(automaticSlots(this.#wanted, this.speedAdapters, this.phases))
  }

  setGuidanceMode(mode: GuidanceMode): void {
    if (mode === this.guidanceMode) return
    this.#guidanceMode = mode
    this.#isPhased = undefined
    this.#levels = {}
    // Those the person put in by hand contradict the choice.
    if (mode === 'classic') this.#dropOnePass()
    this.fitSlots()
  }

  setPhased(isPhased: boolean): void {
    this.#isPhased = isPhased
    this.#guidanceMode = isPhased ? undefined : (this.#guidanceMode ?? 'classic')
    this.#levels = {}
    this.#dropOnePass()
    this.fitSlots()
  }

  setPhase(which: keyof Phases, steps: number): void {
    const { slow, fast } = this.phases
    this.#phases = { slow, fast, [which]: Math.min(30, Math.max(1, Math.round(steps))) }
    this.fitSlots()
  }

  #dropOnePass(): void {
    this.slots.all = this.slots.all.filter(
      ({ role, isAutomatic }) => isAutomatic || role === 'watermark' || !isOnePass(role),
    )
  }

  get steps(): number {
    if (this.#steps !== undefined && !this.stepsReason) return this.#steps
    return this.#stepsBefore
  }
  set steps(value: number) {
    this.#steps = value
    this.#levels = {}
  }
  readonly #stepsBefore = $derived.by(() => {
    if (this.isPhased && !this.phases.isLocked) return this.phases.slow + this.phases.fast
    const { preset } = this
    if (!preset) return paceSteps(this.#pace, this.#modelSteps)
    return preset.stepRange && this.#wanted.few ? this.#plan.steps : preset.steps
  })

  get guidanceScale(): number {
    const preset = this.preset && Math.max(1, this.preset.guidanceScale)
    const model = this.modelRecord?.defaults.guidanceScale ?? fallback.guidanceScale
    if (this.scaleReason) return preset ?? model
    const [least, most] = this.scaleRange
    return Math.min(most, Math.max(least, this.#guidanceScale ?? preset ?? model))
  }
  set guidanceScale(value: number) {
    this.#guidanceScale = value
  }

  get sampler(): SamplerName {
    const usual = this.preset?.sampler ?? this.modelRecord?.defaults.sampler ?? fallback.sampler
    return this.#sampler ?? (usual as SamplerName)
  }
  set sampler(value: SamplerName) {
    this.#sampler = value
    this.#levels = {}
  }

  get schedule(): ScheduleName {
    const usual = this.preset?.schedule ?? this.modelRecord?.defaults.schedule ?? fallback.schedule
    return this.#schedule ?? (usual as ScheduleName)
  }
  set schedule(value: ScheduleName) {
    this.#schedule = value
    this.#levels = {}
  }

  /** How much of each step is computed. */
  get speed(): SpeedName {
    return this.#speed ?? this.#usualSpeed()
  }
  set speed(value: SpeedName) {
    this.#speed = value
  }

  setShape(shape: ShapeName): void {
    this.#isCustomShape = shape === 'custom'
    this.#typed = {}
    this.#size = shape === 'custom' ? this.size : this.#snapped(sizeOf(shape, this.native))
  }

  /** Snaps to a size that the networks can make. */
  setSide(side: 'width' | 'height', value: number): void {
    this.#isCustomShape = true
    const { min, max, multiple } = this.sizes
    this.#typed = { ...this.#typed, [side]: value }
    this.#size = { ...this.size, [side]: snapSide(value, multiple, min, max) }
  }

  /** What was typed, where it became something else. */
  readonly snapped = $derived.by(() => {
    const { size } = this
    const typed = { width: this.#typed.width ?? size.width, height: this.#typed.height ?? size.height }
    return typed.width === size.width && typed.height === size.height ? undefined : typed
  })

  #snapped({ width, height }: Size): Size {
    const { min, max, multiple } = this.sizes
    return { width: snapSide(width, multiple, min, max), height: snapSide(height, multiple, min, max) }
  }

  /** A new seed that stays. */
  rollSeed(): void {
    this.seed = Math.floor(Math.random() * (limits.maxSeed + 1))
    this.seedMode = 'fixed'
  }

  keepSeed(seed: number): void {
    this.seed = seed
    if (this.seedMode === 'random') this.seedMode = 'fixed'
  }

  /** After a request went out: the next one has other seeds where they count up. */
  advance(): void {
    if (this.seedMode === 'increment') this.seed = (this.seed + this.count) % (limits.maxSeed + 1)
  }

  /** Why the negative prompt has no effect: its text is kept. */
  readonly negativeReason = $derived.by(() => {
    if (this.capabilities && !this.capabilities.negativePrompt)
      return this.capabilities.reasons.negativePrompt ?? t('This model reads no negative prompt.')
    if (this.guidanceMode === 'distilled')
      return t('Has no effect with Distilled guidance, which reads only the prompt. Your text is kept.')
    return this.guidanceScale === 1 ? t('Has no effect at guidance scale 1. Your text is kept.') : undefined
  })

  /** What was not touched is left out: main fills it in from adapters and model, also when they are not known here yet. */
  request(): GenerateRequestInput {
    const { steps, preset } = this
    const isOwnSteps = preset && !this.isPhased ? steps !== preset.steps : this.#pace !== 'balanced'
    const sendsSteps = this.stepsReason === undefined && (this.#steps !== undefined || isOwnSteps || this.#isPhased)
    const { prompt, negativePrompt, model, count, clipSkip, guidanceRescale, preview } = this
    const scale = this.scaleReason || this.#guidanceScale === undefined ? undefined : this.guidanceScale
    const adapters = this.slots.uses()
    return {
      ...{ prompt, count, clipSkip, guidanceRescale, preview },
      negativePrompt: this.negativeReason === undefined ? negativePrompt : '',
      model: this.modelRecord?.id ?? model,
      speed: this.speed,
      ...(this.seedMode === 'random' ? {} : { seed: this.seed }),
      ...(this.#size ? { width: this.#size.width, height: this.#size.height } : {}),
      ...(sendsSteps ? { steps } : {}),
      ...(scale === undefined ? {} : { guidanceScale: scale }),
      ...defined({ sampler: this.#sampler, schedule: this.#schedule }),
      ...this.#levels,
      ...(this.source ? { initImage: this.source.file, strength: this.strength } : {}),
      ...(adapters.length > 0 ? { adapters } : {}),
    }
  }

  /** The same picture in as few steps as a draft takes, unless adapters or phases have settled them. */
  draftRequest(): GenerateRequestInput {
    const request = this.request()
    if (this.preset || this.isPhased) return request
    return { ...request, steps: paceSteps('draft', this.#modelSteps), timesteps: undefined }
  }

  /** What is remembered: only what was touched, so that the rest keeps following the model. */
  snapshot(): StudioForm {
    const { prompt, negativePrompt, model, count, seedMode, seed, clipSkip, guidanceRescale, preview, strength } = this
    return {
      ...{ prompt, negativePrompt, model, count, seedMode, seed, clipSkip, guidanceRescale, preview, strength },
      pace: this.#pace,
      ...(this.#isCustomShape ? { isCustomShape: true } : {}),
      ...(this.source ? defined({ initImage: this.source.file, sourceId: this.source.id }) : {}),
      ...(this.#size ? { width: this.#size.width, height: this.#size.height } : {}),
      ...defined({
        steps: this.#steps,
        guidanceMode: this.#guidanceMode,
        guidanceScale: this.#guidanceScale,
        isPhased: this.#isPhased,
        phases: this.#phases,
        sampler: this.#sampler,
        schedule: this.#schedule,
        speed: this.#speed,
      }),
      ...this.#levels,
      ...(this.slots.all.length > 0 ? { slots: this.slots.all } : {}),
    }
  }

  /** Takes what a picture says of how it was made into the form; what is not here is listed, and nothing takes its place. */
  recall(recipe: RecalledRecipe, part: RecallPart): RecallGap[] {
    const { form, gaps } = recalled(recipe, part, { models: this.models.map(({ id }) => id) })
    // Alone, they leave those that speed has put in.
    if (part === 'adapters') form.slots = [...this.slots.reserved, ...(form.slots ?? [])]
    this.change(form)
    if (part === 'all' || part === 'remix') this.#settle()
    return gaps
  }

  /** Values that are just what a choice of speed gives are that choice again. */
  #settle(): void {
    const defaults = this.modelRecord?.defaults ?? fallback
    const reserved = this.slots.reserved.filter(({ role }) => role !== 'watermark')
    const weights = (slots: readonly StudioSlot[]) => slots.map(({ id, weight }) => `${id} ${weight}`).sort()
    for (const pace of ['balanced', 'fast', 'draft', 'quality'] as const) {
      const plan = planOf(pace, this.#modelSteps, this.speedAdapters)
      const slots = automaticSlots(plan, this.speedAdapters, this.phases)
      if (weights(slots).join() !== weights(reserved).join()) continue
      const preset = slots.map(({ id }) => this.#adapters.find(id)?.preset).find((one) => one !== undefined)
      const gives = [
        preset && !plan.few ? preset.steps : plan.steps,
        preset ? Math.max(1, preset.guidanceScale) : defaults.guidanceScale,
        preset?.sampler ?? defaults.sampler,
        preset?.schedule ?? defaults.schedule,
      ]
      const has = [this.#steps, this.#guidanceScale, this.#sampler, this.#schedule]
      // Noise levels of a picture are those of its adapter, or of nobody here.
      const isOwn = this.#levels.timesteps !== undefined && !preset?.hasLevels
      if (isOwn || has.some((value, i) => value !== undefined && value !== gives[i])) continue
      this.setPace(pace)
      return
    }
  }

  /** Sets the fields named; undefined takes one back to its default. The others stay. */
  change(form: StudioForm): void {
    this.restore({ ...this.snapshot(), ...form })
  }

  restore(form: StudioForm): void {
    this.prompt = form.prompt ?? this.prompt
    this.negativePrompt = form.negativePrompt ?? ''
    this.model = form.model ?? this.model
    this.count = form.count ?? 1
    this.seedMode = form.seedMode ?? 'random'
    this.seed = form.seed ?? 0
    this.clipSkip = form.clipSkip ?? 1
    this.guidanceRescale = form.guidanceRescale ?? 0
    this.preview = form.preview ?? 'fast'
    this.strength = form.strength ?? 0.6
    this.source = form.initImage ? { file: form.initImage, ...defined({ id: form.sourceId }) } : undefined
    this.#size = form.width && form.height ? { width: form.width, height: form.height } : undefined
    this.#isCustomShape = form.isCustomShape ?? false
    this.#typed = {}
    this.#pace = form.pace ?? 'balanced'
    this.#steps = form.steps
    this.#guidanceMode = form.guidanceMode
    this.#guidanceScale = form.guidanceScale
    this.#isPhased = form.isPhased
    this.#phases = form.phases
    this.#sampler = form.sampler
    this.#schedule = form.schedule
    this.#speed = form.speed
    this.#levels = defined({ timesteps: form.timesteps, eta: form.eta, zeroTerminalSnr: form.zeroTerminalSnr })
    this.slots.restore(form.slots ?? [])
  }
}

function isOnePass(role: string): boolean {
  return role === 'guidance' || role.startsWith('speed')
}

function defined<T extends object>(all: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as never
}
