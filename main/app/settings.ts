import * as z from 'zod'
import { Settings, StudioForm } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { JsonFile, readJson } from './files.ts'

/** Where the window was. */
export const WindowBounds = z.object({
  x: z.number(),
  y: z.number(),
  width: z.number(),
  height: z.number(),
  isMaximized: z.boolean().default(false),
})
export type WindowBounds = z.infer<typeof WindowBounds>

/** As much as has to hold for the file to be ours; each setting is looked at by itself. */
const Stored = z.object({
  version: z.int(),
  settings: z.record(z.string(), z.unknown()),
  bounds: z.unknown().optional(),
})

export type SettingsStore = {
  get(): Settings
  change(part: Partial<Settings>): Promise<void>
  /** Back to their defaults. */
  reset(keys: readonly string[]): Promise<void>
  bounds(): WindowBounds | undefined
  saveBounds(bounds: WindowBounds): Promise<void>
  /** Hears of every change, with the keys it touched. */
  onChange(listener: (settings: Settings, keys: readonly string[]) => void): void
  /** Settings of the file that could not be read and are at their defaults. */
  readonly dropped: readonly string[]
}

/**
 * Opens settings.json; a damaged file opens from its last good copy. A single value that is not allowed, from another
 * version or from somebody's editor, is left out and the others stay; keys of a later version are kept as they are.
 */
export async function openSettings(path: string): Promise<SettingsStore> {
  const stored = await readJson(path, Stored)
  const { settings, dropped, unknown } = readSettings(stored?.settings ?? {})
  let bounds = WindowBounds.safeParse(stored?.bounds).data
  const listeners: ((settings: Settings, keys: readonly string[]) => void)[] = []
  const file = new JsonFile(path, () => ({ version: 1, settings: { ...unknown, ...settings }, bounds }))
  const changed = (keys: readonly string[]): Promise<void> => {
    for (const listener of listeners) listener(settings, keys)
    return file.save()
  }
  return {
    dropped,
    get: () => settings,
    change(part) {
      for (const [key, value] of Object.entries(part)) {
        if (value === undefined) delete settings[key as keyof Settings]
        else Object.assign(settings, { [key]: value })
      }
      return changed(Object.keys(part))
    },
    reset(keys) {
      for (const key of keys) delete settings[key as keyof Settings]
      return changed(keys)
    },
    bounds: () => bounds,
    saveBounds(value) {
      bounds = value
      return file.save()
    },
    onChange: (listener) => void listeners.push(listener),
  }
}

/** Each value by itself: what is allowed, the names of what is not, and what this version does not know. */
export function readSettings(raw: Record<string, unknown>): {
  settings: Settings
  dropped: string[]
  unknown: Record<string, unknown>
} {
  const settings: Record<string, unknown> = {}
  const unknown: Record<string, unknown> = {}
  const dropped: string[] = []
  for (const [key, value] of Object.entries(raw)) {
    if (!Object.hasOwn(Settings.shape, key)) unknown[key] = value
    else if (key === 'form') settings.form = readForm(value, dropped)
    else {
      const parsed = Settings.shape[key as keyof typeof Settings.shape].safeParse(value)
      if (parsed.success && parsed.data !== undefined) settings[key] = parsed.data
      else dropped.push(key)
    }
  }
  return { settings: settings as Settings, dropped, unknown }
}

/** The form field by field too, and its slots one by one: a prompt must not go because a number was wrong. */
function readForm(raw: unknown, dropped: string[]): StudioForm {
  const form: Record<string, unknown> = {}
  if (typeof raw !== 'object' || raw === null) return (dropped.push('form'), form)
  for (const [key, value] of Object.entries(raw)) {
    const schema = Object.hasOwn(StudioForm.shape, key)
      ? (StudioForm.shape as Record<string, z.ZodType>)[key]
      : undefined
    if (!schema) continue
    const parsed = schema.safeParse(value)
    if (parsed.success) form[key] = parsed.data
    else {
      dropped.push(`form.${key}`)
      if (Array.isArray(value)) form[key] = value.filter((one) => schema.safeParse([one]).success)
    }
  }
  return form as StudioForm
}

const exportKind = 'vignette-settings'

/** What may leave in a file and come from one: choices. Prompts and places stay, and no file turns the network on. */
const exported = (Object.keys(settingDefaults) as (keyof Settings)[]).filter(
  (key) => !['isOnline', 'mayCheckUpdates', 'mayDownloadModels'].includes(key),
)

/** The person's choices as a file for another computer. */
export function settingsAsText(settings: Settings, appVersion: string): string {
  const chosen = Object.fromEntries(
    exported.filter((key) => settings[key] !== undefined).map((key) => [key, settings[key]]),
  )
  return `${JSON.stringify({ kind: exportKind, version: 1, appVersion, settings: chosen }, null, 2)}\n`
}

/** Choices from such a file, and what in it is not known or not allowed here; undefined when it is another kind of file. */
export function settingsFromText(text: string): { settings: Settings; ignored: string[] } | undefined {
  const File = z.object({ kind: z.literal(exportKind), settings: z.record(z.string(), z.unknown()) })
  let parsed
  try {
    parsed = File.safeParse(JSON.parse(text))
  } catch {
    return undefined
  }
  if (!parsed.success) return undefined
  const { settings, dropped, unknown } = readSettings(parsed.data.settings)
  const others = Object.keys(settings).filter((key) => !exported.includes(key as keyof Settings))
  for (const key of others) delete settings[key as keyof Settings]
  return { settings, ignored: [...dropped, ...Object.keys(unknown), ...others] }
}
