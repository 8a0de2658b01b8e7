import type { Settings } from '../../preload/contract/settings.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { totalMemoryBytes, type EngineSettings } from '../engine/client.ts'

/** What of the person's choices the engine is started with; what was never touched is left to the engine. */
export function engineSettings(settings: Settings): EngineSettings {
  const { device, fourBitMode, memoryPercent, threads } = settings
  const minutes = settings.keepModelMinutes ?? settingDefaults.keepModelMinutes
  return {
    ...(device !== undefined ? { device } : {}),
    ...(fourBitMode !== undefined && fourBitMode !== 'auto' ? { mode: fourBitMode } : {}),
    ...(memoryPercent !== undefined ? { memoryBudgetBytes: (memoryPercent / 100) * totalMemoryBytes() } : {}),
    ...(threads !== undefined && threads !== 'auto' ? { threads } : {}),
    keepModelMs: minutes * 60_000,
  }
}

/** The settings of the above, by their names. */
export const engineKeys: readonly string[] = [
  'device',
  'fourBitMode',
  'memoryPercent',
  'threads',
  'keepModelMinutes',
] satisfies (keyof Settings)[]
