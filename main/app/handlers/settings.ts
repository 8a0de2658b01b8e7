import type { settingRequests } from '../../../preload/contract/settings.ts'
import type { HandlersOf } from '../answer.ts'
import type { SettingsStore } from '../settings.ts'

export function settingHandlers(parts: { settings: SettingsStore }): HandlersOf<typeof settingRequests> {
  const { settings } = parts
  return {
    'settings:save': (part) => settings.change(part),
    'settings:reset': ({ keys }) => settings.reset(keys),
  }
}
