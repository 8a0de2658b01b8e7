import type { Settings } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { totalMemoryBytes, type EngineSettings } from '../engine/client.ts'

/** What of the settings the engine is told, and how. */
const toEngine = {
  device: ({ device }: Settings): EngineSettings => ({ device }),
  fourBitMode: ({ fourBitMode }: Settings) => ({ mode: fourBitMode === 'auto' ? undefined : fourBitMode }),
  memoryPercent: ({ memoryPercent }: Settings) => ({
    memoryBudgetBytes: memoryPercent === undefined ? undefined : Math.floor((totalMemoryBytes() * memoryPercent) / 100),
  }),
  threads: ({ threads }: Settings) => ({ threads: threads === 'auto' ? undefined : threads }),
  keepModelMinutes: ({ keepModelMinutes = settingDefaults.keepModelMinutes }: Settings) => ({
    keepModelMs: keepModelMinutes * 60_000,
  }),
} satisfies Partial<Record<keyof Settings, (settings: Settings) => EngineSettings>>

/**
 * What the engine is told when these settings have changed; undefined when none of them is its business. A setting that
 * the person never touched is left as the engine was made.
 */
export function engineSettings(settings: Settings, keys: readonly string[]): EngineSettings | undefined {
  const ours = (Object.keys(toEngine) as (keyof typeof toEngine)[]).filter((key) => keys.includes(key))
  if (ours.length === 0) return undefined
  return Object.assign({}, ...ours.map((key) => toEngine[key](settings))) as EngineSettings
}

/** At the start: what the person has chosen, and how long a model stays. */
export function firstEngineSettings(settings: Settings): EngineSettings {
  const chosen = Object.keys(toEngine).filter((key) => settings[key as keyof Settings] !== undefined)
  return engineSettings(settings, [...chosen, 'keepModelMinutes'])!
}
