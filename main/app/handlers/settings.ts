import { readFile, stat } from 'node:fs/promises'
import { VignetteError } from '../../../models/errors.ts'
import type { networkRequests } from '../../../preload/contract/network.ts'
import type { settingRequests } from '../../../preload/contract/settings.ts'
import type { HandlersOf } from '../answer.ts'
import { writeAtomic } from '../files.ts'
import type { Network } from '../network.ts'
import type { Dialogs } from '../services.ts'
import { settingsAsText, settingsFromText, type SettingsStore } from '../settings.ts'
import { checkForUpdate } from '../updates.ts'

const maxImportBytes = 1_000_000

export function settingHandlers(parts: {
  version: string
  settings: SettingsStore
  dialogs: Dialogs
}): HandlersOf<typeof settingRequests> {
  const { version, settings, dialogs } = parts
  return {
    'settings:save': (part) => settings.change(part),
    'settings:reset': ({ keys }) => settings.reset(keys),
    'settings:export': async () => {
      const file = await dialogs.saveAs('vignette-settings.json')
      if (file === undefined) return {}
      await writeAtomic(file, settingsAsText(settings.get(), version))
      return { file }
    },
    'settings:import': async () => {
      const [file] = await dialogs.choose('settings')
      if (file === undefined) return undefined
      const isSmall = (await stat(file)).size <= maxImportBytes
      const read = isSmall ? settingsFromText(await readFile(file, 'utf8')) : undefined
      if (!read) {
        throw new VignetteError('file-unreadable', 'This file does not hold settings of Vignette.', {
          hint: 'Choose a file that was made with Export settings.',
        })
      }
      await settings.change(read.settings)
      return { changed: Object.keys(read.settings), ignored: read.ignored }
    },
  }
}

export function networkHandlers(parts: {
  version: string
  settings: SettingsStore
  network: Network
}): HandlersOf<typeof networkRequests> {
  const { version, settings, network } = parts
  return {
    'network:ledger': () => network.ledger(),
    'network:checkUpdates': async () => {
      const address = settings.get().updateAddress ?? ''
      const refusal = network.refusal('update-check')
      if (refusal) throw refusal
      if (address === '') {
        throw new VignetteError('bad-request', 'There is no address to ask for updates.', {
          hint: 'Enter one under Settings, About & updates.',
        })
      }
      return checkForUpdate(network, { address, version })
    },
  }
}
