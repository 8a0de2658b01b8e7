import * as z from 'zod'
import { Settings } from '../../preload/contract/settings.ts'
import { JsonFile, readJson } from './files.ts'

/** Where the window was. `display` tells whether that screen is still there. */
export const WindowBounds = z.object({
  x: z.number(),
  y: z.number(),
  width: z.number(),
  height: z.number(),
  isMaximized: z.boolean().default(false),
})
export type WindowBounds = z.infer<typeof WindowBounds>

const Stored = z.object({ version: z.literal(1), settings: Settings, bounds: WindowBounds.optional() })

export type SettingsStore = {
  get(): Settings
  change(part: Partial<Settings>): Promise<void>
  /** Back to their defaults. */
  reset(keys: readonly string[]): Promise<void>
  bounds(): WindowBounds | undefined
  saveBounds(bounds: WindowBounds): Promise<void>
}

/** Opens settings.json; a damaged one opens from its last good copy, and without one everything is at its default. */
export async function openSettings(path: string): Promise<SettingsStore> {
  const stored: z.infer<typeof Stored> = (await readJson(path, Stored)) ?? { version: 1, settings: {} }
  const file = new JsonFile(path, () => stored)
  return {
    get: () => stored.settings,
    change(part) {
      Object.assign(stored.settings, part)
      return file.save()
    },
    reset(keys) {
      for (const key of keys) delete stored.settings[key as keyof Settings]
      return file.save()
    },
    bounds: () => stored.bounds,
    saveBounds(bounds) {
      stored.bounds = bounds
      return file.save()
    },
  }
}
