import { describe, expect, it } from 'vitest'
import type { AdapterRecord } from '../../../preload/contract/adapters.ts'
import { GenerateRequest } from '../../../preload/contract/generate.ts'
import { RecalledRecipe } from '../../../preload/contract/images.ts'
import type { Capabilities, ModelRecord } from '../../../preload/contract/models.ts'
import { StudioForm } from '../../../preload/contract/settings.ts'
import { AdaptersState } from '../../../renderer/state/adapters.svelte.ts'
import { FormState } from '../../../renderer/state/form.svelte.ts'
import type { RecallPart } from '../../../renderer/state/recall.ts'
import { adapterRecord as record } from '../app/adapter-record.ts'
import { modelRecordOf } from '../model-record.ts'

const model = modelRecordOf()

const levels = { name: 'Slow and fast, 10 steps', sampler: 'ddim', steps: 10, guidanceScale: 1, hasLevels: true }
const slow = record('slow', { role: 'speed-slow', preset: { ...levels, activeSteps: [0, 5] } })
const fast = record('fast', { role: 'speed-fast', preset: { ...levels, activeSteps: [5, 10] } })
const guidance = record('guidance', { role: 'guidance', guidanceRange: [1, 8] })
const lcm = record('lcm', {
  role: 'speed',
  preset: { name: 'LCM', sampler: 'lcm', steps: 4, guidanceScale: 1, stepRange: [2, 8], hasLevels: true },
})

function formWith(records: AdapterRecord[], models: ModelRecord[] = [model]): FormState {
  const adapters = new AdaptersState()
  adapters.replace('starter', { adapters: records, isScanning: false, links: [], roots: [] })
  const form = new FormState(adapters)
  form.models = models
  form.prompt = 'a fox'
  return form
}
const shown = (form: FormState) => [form.pace, form.steps, form.guidanceMode, form.sampler]
const slotIds = (form: FormState) => form.slots.all.map(({ id }) => id)

describe('the choice of speed', () => {
  it('is Balanced at first: what the model says', () => {
    const form = formWith([])
    expect(shown(form)).toEqual(['balanced', 20, 'classic', 'dpmpp_2m'])
    expect(form.request()).not.toHaveProperty('steps')
  })

  it('sets 4, 8, 20 and 36 steps where no adapter helps, and as many of another model as it wants', () => {
    const form = formWith([])
    const steps = (['draft', 'fast', 'balanced', 'quality'] as const).map((pace) => (form.setPace(pace), form.steps))
    expect(steps).toEqual([4, 8, 20, 36])
    expect(form.request().steps).toBe(36)
    form.models = [{ ...model, defaults: { ...model.defaults, steps: 30 } }]
    expect(form.steps).toBe(54)
  })

  it('AC06 sets steps, guidance, sampler and adapters in one action, and takes them away again', () => {
    const form = formWith([slow, fast, guidance])
    form.setPace('fast')
    expect(shown(form)).toEqual(['fast', 10, 'distilled', 'ddim'])
    expect(slotIds(form)).toEqual(['slow', 'fast'])
    expect(form.slots.all.every(({ isAutomatic }) => isAutomatic)).toBe(true)
    expect(form.guidanceScale).toBe(1)
    // Main sets all of it from the adapters.
    for (const key of ['steps', 'sampler', 'guidanceScale', 'schedule']) expect(form.request()).not.toHaveProperty(key)
    form.setPace('draft')
    expect(shown(form)).toEqual(['draft', 4, 'distilled', 'dpmpp_2m'])
    expect(slotIds(form)).toEqual(['guidance'])
    expect(form.request().steps).toBe(4)
    form.setPace('balanced')
    expect(shown(form)).toEqual(['balanced', 20, 'classic', 'dpmpp_2m'])
    expect(slotIds(form)).toEqual([])
  })

  it('takes an adapter for few steps before all others, within the steps it is made for', () => {
    const form = formWith([slow, fast, guidance, lcm])
    form.setPace('fast')
    expect(shown(form)).toEqual(['fast', 8, 'distilled', 'lcm'])
    expect(form.request().steps).toBe(8)
    form.setPace('draft')
    expect(shown(form)).toEqual(['draft', 4, 'distilled', 'lcm'])
    expect(form.request()).not.toHaveProperty('steps')
    expect(slotIds(form)).toEqual(['lcm'])
  })

  it('AC06 becomes Custom when a part is set by hand, and goes back', () => {
    for (const edit of [
      (form: FormState) => (form.steps = 7),
      (form: FormState) => (form.sampler = 'euler'),
      (form: FormState) => (form.schedule = 'karras'),
      (form: FormState) => form.setGuidanceMode('distilled'),
      (form: FormState) => form.setPhased(true),
      (form: FormState) => void form.slots.add(lcm),
    ]) {
      const form = formWith([slow, fast, guidance, lcm])
      const before = form.request()
      edit(form)
      expect(form.pace, String(edit)).toBe('custom')
      expect(form.paceBefore).toBe('balanced')
      form.followPace()
      expect(form.pace).toBe('balanced')
      expect(form.request()).toEqual(before)
    }
  })

  it('does not touch the adapters of the person', () => {
    const form = formWith([slow, fast, guidance])
    form.slots.add(record('ink'))
    form.setPace('fast')
    form.setPace('quality')
    expect(slotIds(form)).toEqual(['ink'])
  })

  it('fits its adapters to what the library has, once that is known', () => {
    const adapters = new AdaptersState()
    const form = new FormState(adapters)
    form.models = [model]
    form.restore({
      pace: 'fast',
      slots: [{ ...slotLike('slow', 'speed-slow') }, { ...slotLike('fast', 'speed-fast') }],
    })
    form.fitSlots()
    expect(slotIds(form)).toEqual(['slow', 'fast']) // nothing is known yet
    adapters.replace('starter', { adapters: [guidance], isScanning: true, links: [], roots: [] })
    form.fitSlots()
    expect(slotIds(form)).toEqual(['slow', 'fast']) // headers are still read
    adapters.apply({ type: 'adapters:changed', model: 'starter', changed: [], gone: [], scan: null })
    form.fitSlots()
    expect(slotIds(form)).toEqual(['guidance'])
    expect(form.steps).toBe(8)
  })
})

const slotLike = (id: string, role: AdapterRecord['role']) => ({
  ...{ id, name: id, role, isOn: true, weight: 1, start: 0, end: 1, ramp: 'flat' as const, isAutomatic: true },
})

describe('guidance', () => {
  it('AC07 in its Distilled mode takes the negative prompt out of use and keeps its text', () => {
    const form = formWith([guidance])
    form.negativePrompt = 'rain'
    form.setGuidanceMode('distilled')
    expect(form.negativeReason).toContain('Distilled')
    expect(form.negativePrompt).toBe('rain')
    expect(form.request().negativePrompt).toBe('')
    form.setGuidanceMode('classic')
    expect(form.negativeReason).toBeUndefined()
    expect(form.request().negativePrompt).toBe('rain')
    expect(slotIds(form)).toEqual([])
  })

  it('keeps its scale within what the adapter was taught, and is locked where guidance is built in', () => {
    const form = formWith([guidance, slow, fast])
    form.guidanceScale = 12
    form.setGuidanceMode('distilled')
    expect([form.guidanceScale, form.scaleRange]).toEqual([8, [1, 8]])
    expect(form.scaleReason).toBeUndefined()
    form.setPhased(true)
    expect(form.scaleReason).toContain('Slow and fast')
    expect(form.request()).not.toHaveProperty('guidanceScale')
    form.setGuidanceMode('classic')
    expect(form.guidanceScale).toBe(12)
  })

  it('says why it cannot be Distilled, and when the negative prompt has no effect', () => {
    const form = formWith([])
    expect(form.distilledReason).toContain('guidance adapter')
    form.guidanceScale = 1
    expect(form.negativeReason).toContain('guidance scale 1')
    form.guidanceScale = 4
    form.capabilities = {
      negativePrompt: false,
      reasons: { negativePrompt: 'Not here.' },
    } as Partial<Capabilities> as Capabilities
    expect(form.negativeReason).toBe('Not here.')
  })
})

describe('phases', () => {
  it('are locked to what the adapters declare', () => {
    const form = formWith([slow, fast])
    form.setPhased(true)
    expect(form.phases).toEqual({ slow: 5, fast: 5, isLocked: true })
    expect(form.stepsReason).toContain('5 and 5 steps')
    form.steps = 30
    expect(form.steps).toBe(10)
    expect(form.request()).not.toHaveProperty('steps')
  })

  it('are free where they declare nothing: the border moves with the steps', () => {
    const form = formWith([record('s', { role: 'speed-slow' }), record('f', { role: 'speed-fast' })])
    form.setPhased(true)
    form.setPhase('slow', 6)
    form.setPhase('fast', 99)
    expect(form.steps).toBe(36)
    expect(form.request().steps).toBe(36)
    expect(form.slots.all.map(({ start, end }) => [start, end])).toEqual([
      [0, 6 / 36],
      [6 / 36, 1],
    ])
    form.setPhased(false)
    expect(form.slots.all).toEqual([])
  })

  it('are off, with the reason, without a pair', () => {
    const form = formWith([slow])
    form.setPhased(true)
    expect(form.isPhased).toBe(false)
    expect(form.phaseReason).toContain('pair')
  })
})

describe('the rest of the form', () => {
  it('AC09 snaps a custom shape to the multiple of the model and says what was typed', () => {
    const form = formWith([])
    form.capabilities = {
      sizes: { min: 64, max: 1024, multiple: 16, native: [] },
    } as Partial<Capabilities> as Capabilities
    form.setShape('custom')
    form.setSide('width', 515)
    form.setSide('height', 700)
    expect(form.size).toEqual({ width: 512, height: 704 })
    expect(form.snapped).toEqual({ width: 515, height: 700 })
    form.setSide('width', 9999)
    expect(form.size.width).toBe(1024)
    form.setSide('width', 1024)
    form.setSide('height', 704)
    expect(form.snapped).toBeUndefined()
  })

  it('AC10 asks for a seed only where it is fixed or counts up', () => {
    const form = formWith([])
    expect(form.request()).not.toHaveProperty('seed')
    form.keepSeed(7)
    form.advance()
    expect([form.seedMode, form.request().seed]).toEqual(['fixed', 7])
    form.seedMode = 'increment'
    form.count = 3
    form.advance()
    expect(form.request().seed).toBe(10)
    form.seed = 4294967295
    form.advance()
    expect(form.seed).toBe(2)
    form.rollSeed()
    expect(form.seedMode).toBe('fixed')
  })

  it('starts from a picture only while there is one', () => {
    const form = formWith([])
    form.strength = 0.3
    expect(form.request()).not.toHaveProperty('strength')
    form.source = { file: '/a.png', id: 'a' }
    expect(form.request()).toMatchObject({ initImage: '/a.png', strength: 0.3 })
  })

  it('is remembered exactly, and fits the contract', () => {
    const form = formWith([slow, fast, guidance])
    form.setPace('fast')
    form.steps = 9
    form.setShape('custom')
    form.setSide('width', 96)
    form.source = { file: '/a.png' }
    form.clipSkip = 2
    form.speed = 'faster'
    form.seedMode = 'increment'
    const saved = StudioForm.parse(JSON.parse(JSON.stringify(form.snapshot())))
    const again = formWith([slow, fast, guidance])
    again.restore(saved)
    expect(again.snapshot()).toEqual(form.snapshot())
    expect(again.request()).toEqual(form.request())
    expect(again.shape).toBe('custom')
    expect(GenerateRequest.safeParse(form.request()).success).toBe(true)
  })
})

describe('AC40 recalling a picture', () => {
  const recipe = RecalledRecipe.parse({
    request: {
      ...{ prompt: 'a red fox', promptTemplate: 'a {red|blue} fox', negativePrompt: 'rain', model: 'starter' },
      ...{ width: 96, height: 128, steps: 12, seed: 77, sampler: 'euler', schedule: 'karras', guidanceScale: 6 },
      ...{ guidanceRescale: 0.5, clipSkip: 2, speed: 'faster', strength: 0.4 },
    },
    model: { id: 'starter', name: 'Starter', sha256: 'aa' },
    adapters: [
      {
        id: 'ink',
        name: 'ink.safetensors',
        sha256: 'b'.repeat(64),
        weight: 0.7,
        textWeight: 0.7,
        start: 0.2,
        end: 0.8,
      },
      { name: 'gone.safetensors', sha256: 'c'.repeat(64), weight: 1 },
      { id: 'guidance', name: 'guidance.safetensors', weight: 1, role: 'guidance', isGuidance: true },
    ],
    source: { name: 'sketch.png', file: '/sketch.png', id: 'sketch' },
  })
  const began = () => {
    const form = formWith([guidance, record('ink'), record('own')])
    form.keepSeed(1)
    form.negativePrompt = 'mine'
    form.count = 4
    form.slots.add(record('own'))
    return form
  }
  const words = { prompt: 'a {red|blue} fox', negativePrompt: 'rain' }
  const settings = {
    ...{ width: 96, height: 128, steps: 12, sampler: 'euler', schedule: 'karras', guidanceScale: 6 },
    ...{
      guidanceRescale: 0.5,
      clipSkip: 2,
      speed: 'faster',
      strength: 0.4,
      initImage: '/sketch.png',
      sourceId: 'sketch',
    },
  }
  const cases: [RecallPart, object, string[]][] = [
    ['all', { ...words, ...settings, seed: 77, seedMode: 'fixed' }, ['ink', 'guidance']],
    ['remix', { ...words, ...settings, seed: 1, seedMode: 'fixed' }, ['ink', 'guidance']],
    ['seed', { seed: 77, seedMode: 'fixed' }, ['own']],
    ['prompt', words, ['own']],
    ['adapters', {}, ['ink']],
  ]

  it.each(cases)('AC40 %s restores exactly its fields', (part, changed, slots) => {
    const form = began()
    const before = form.snapshot()
    form.recall(recipe, part)
    expect({ ...form.snapshot(), slots: [] }).toEqual({ ...before, ...changed, slots: [] })
    expect(slotIds(form)).toEqual(slots)
    if (slots.includes('ink'))
      expect(form.slots.all[0]).toMatchObject({ weight: 0.7, start: 0.2, end: 0.8, isOn: true })
  })

  it('AC40 what is drawn is what the recipe says', () => {
    const form = began()
    form.recall(recipe, 'all')
    form.fitSlots()
    const request = GenerateRequest.parse(form.request())
    expect(request).toMatchObject({
      seed: 77,
      steps: 12,
      sampler: 'euler',
      guidanceScale: 6,
      speed: 'faster',
      strength: 0.4,
    })
    expect(request.adapters.map(({ file }) => file)).toEqual(['ink', 'guidance'])
  })

  it('AC40 what a choice of speed made is that choice again', () => {
    const made = (request: object, adapters: object[] = []) => RecalledRecipe.parse({ request, adapters })
    const plain = { prompt: 'a fox', sampler: 'dpmpp_2m', schedule: 'trailing', guidanceScale: 4 }
    const pair = ['slow', 'fast'].map((id, i) => ({
      ...{ id, name: id, weight: 1, textWeight: 1, role: `speed-${id}`, start: i / 2, end: (i + 1) / 2 },
    }))
    const cases: [RecalledRecipe, string, number][] = [
      [made({ ...plain, steps: 20 }), 'balanced', 20],
      [made({ ...plain, steps: 36 }), 'quality', 36],
      [made({ ...plain, steps: 21 }), 'custom', 21],
      [
        made({ ...plain, steps: 10, sampler: 'ddim', guidanceScale: 1, timesteps: Array(10).fill(1) }, pair),
        'fast',
        10,
      ],
      [made({ ...plain, steps: 10, sampler: 'euler', guidanceScale: 1 }, pair), 'custom', 10],
      [made({ ...plain, steps: 4 }, [{ id: 'guidance', name: 'g', weight: 1, role: 'guidance' }]), 'draft', 4],
    ]
    for (const [recipe, pace, steps] of cases) {
      const form = formWith([slow, fast, guidance])
      form.setPace('fast')
      form.recall(recipe, 'all')
      form.fitSlots()
      expect([form.pace, form.steps, form.slots.all.length], pace).toEqual([pace, steps, recipe.adapters.length])
      expect(form.isPhased).toBe(recipe.adapters.length === 2)
    }
  })

  it('AC41 lists what is missing, by name and hash, and puts nothing in its place', () => {
    const gaps = began().recall(recipe, 'all')
    expect(gaps).toEqual([
      expect.objectContaining({ kind: 'adapter', name: 'gone.safetensors', sha256: 'c'.repeat(64) }),
    ])
    expect(gaps[0].text).toContain('cccccccccccc')
    const form = began()
    const others = form.recall(
      { ...recipe, model: { name: 'Other', sha256: 'dd' }, source: { name: 'x.png' } },
      'remix',
    )
    expect(others.map(({ kind }) => kind)).toEqual(['adapter', 'model', 'source'])
    expect([form.model, form.source]).toEqual(['starter', undefined])
    expect(form.recall({ adapters: [] }, 'seed').map(({ kind }) => kind)).toEqual(['seed'])
  })

  it('takes the words that were drawn where lists may have changed, and only to make the very picture again', () => {
    const form = began()
    const listed = { ...recipe, request: { ...recipe.request, promptTemplate: 'a __colours__ fox' } }
    form.recall(listed, 'all')
    expect(form.prompt).toBe('a red fox')
    form.recall(listed, 'prompt')
    expect(form.prompt).toBe('a __colours__ fox')
  })
})
