import * as z from 'zod'
import { limits, paceNames, screenNames, speedNames } from '../limits.ts'
import { AdapterRoleName } from './adapters.ts'
import { AdapterUse, GenerateRequest } from './generate.ts'

/** A slot of the strip: an adapter of the library, and how it is set. */
export const StudioSlot = AdapterUse.pick({ start: true, end: true, ramp: true, textWeight: true }).extend({
  id: z.string(),
  /** Shown when the file is gone. */
  name: z.string(),
  role: AdapterRoleName,
  isOn: z.boolean(),
  weight: z.number().min(-limits.maxAdapterWeight).max(limits.maxAdapterWeight),
  /** Put there by a choice of speed or guidance, and taken away with it. */
  isAutomatic: z.boolean().optional(),
})
export type StudioSlot = z.infer<typeof StudioSlot>

/** The form of the Studio as the person left it; what is absent follows the model. */
export const StudioForm = GenerateRequest.omit({
  maskImage: true,
  adapters: true,
  promptTemplate: true,
  negativeTemplate: true,
})
  .partial()
  .extend({
    seedMode: z.enum(['random', 'fixed', 'increment']).optional(),
    /** The choice of speed. A part of it that was changed by hand stands beside it, as in `steps`. */
    pace: z.enum(paceNames).optional(),
    /** Both sides were typed, and no named shape is shown for them. */
    isCustomShape: z.boolean().optional(),
    /** The picture to start from, when it is one of the library; `initImage` is its file. */
    sourceId: z.string().optional(),
    guidanceMode: z.enum(['classic', 'distilled']).optional(),
    /** A slow phase and a fast one, each with an adapter of its own; absent: as the choice of speed has it. */
    isPhased: z.boolean().optional(),
    phases: z.object({ slow: z.int().min(1).max(30), fast: z.int().min(1).max(30) }).optional(),
    slots: z.array(StudioSlot).optional(),
  })
export type StudioForm = z.infer<typeof StudioForm>

/**
 * What the person has chosen. Absent means the default, which `settingDefaults` in defaults.ts holds; so a changed one can be told
 * from one that was never touched. Keys are grouped as the pages of the Settings screen are.
 */
export const Settings = z
  .object({
    isWelcomeDismissed: z.boolean(),
    /** How many pictures the coach line has been seen with. */
    coachedPictures: z.int(),
    form: StudioForm,
    /** Words of the last prompts, newest first. */
    promptHistory: z.array(z.string()).max(100),
    /** Where each screen was left: panel widths, scroll positions, open folds, searches. By a name of the screen's own. */
    places: z.record(z.string(), z.unknown()),
    screen: z.enum(screenNames),

    // General
    language: z.string(),
    theme: z.enum(['system', 'light', 'dark', 'contrast']),
    textScale: z.int().min(80).max(200).multipleOf(10),
    density: z.enum(['comfortable', 'compact']),
    startScreen: z.enum(['last', 'studio', 'gallery']),

    // Library
    binDays: z.union([z.literal(7), z.literal(30), z.literal(90), z.literal('never')]),

    // Performance
    device: z.enum(['auto', 'cpu', 'gpu']),
    /** Share of the memory of this computer that the engine may use, in percent. */
    memoryPercent: z.int().min(25).max(90),
    threads: z.union([z.literal('auto'), z.int().min(1).max(256)]),
    /** Of 4-bit models on the processor. */
    fourBitMode: z.enum(['auto', 'fast', 'low-memory']),
    keepModelMinutes: z.int().min(0).max(60),
    pauseOnBattery: z.boolean(),
    speed: z.enum(speedNames),

    // Queue
    isStudioFirst: z.boolean(),
    afterCrash: z.enum(['pause', 'resume']),
    keepsCheckpoints: z.boolean(),
    whenDone: z.enum(['nothing', 'notify', 'sleep']),

    // Studio
    addsTriggers: z.boolean(),

    // Privacy and network
    isOnline: z.boolean(),
    mayCheckUpdates: z.boolean(),
    mayDownloadModels: z.boolean(),
    /** Where new versions are announced: a list of releases as GitHub gives it. */
    updateAddress: z.union([z.url({ protocol: /^https?$/ }).max(500), z.literal('')]),

    // Shortcuts: the keys of a command that the person has changed; an empty list takes its keys away.
    shortcuts: z.record(z.string(), z.array(z.string())),

    // Accessibility
    reducedMotion: z.enum(['system', 'on']),
    announceEvery: z.union([z.literal(10), z.literal(25), z.literal(50)]),
    hasSounds: z.boolean(),
    hasSingleKeys: z.boolean(),
    hasLargerTargets: z.boolean(),
    escCancels: z.boolean(),

    // Safety
    blursMature: z.boolean(),
  })
  .partial()
export type Settings = z.infer<typeof Settings>

export const settingRequests = {
  /** Changes the fields named and leaves the others. */
  'settings:save': { input: Settings, output: z.void() },
  'settings:reset': { input: z.object({ keys: z.array(z.string()).max(100) }), output: z.void() },
  /** Into a file that the person names in the system's panel; no file when they thought better of it. */
  'settings:export': { input: z.void(), output: z.object({ file: z.string().optional() }) },
  /** From such a file: what it changed, and what of it is not known or not allowed here. */
  'settings:import': {
    input: z.void(),
    output: z.object({ changed: z.array(z.string()), ignored: z.array(z.string()) }).optional(),
  },
} satisfies Record<string, { input: z.ZodType; output: z.ZodType }>

export const settingEvents = [z.object({ type: z.literal('settings:changed'), settings: Settings })] as const
