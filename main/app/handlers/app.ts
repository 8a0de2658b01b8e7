import { open } from 'node:fs/promises'
import type { About, appRequests, MenuCommand } from '../../../preload/contract/app.ts'
import type { DeviceReport } from '../../../preload/contract/models.ts'
import { about } from '../about.ts'
import type { HandlersOf } from '../answer.ts'
import { diagnosticsText } from '../diagnostics.ts'
import { writeAtomic } from '../files.ts'
import type { Dialogs } from '../services.ts'
import type { SettingsStore } from '../settings.ts'
import type { Storage } from '../storage.ts'

/** What only the window system can do. */
export type Desktop = {
  /** Shows a web page in the person's browser. */
  openLink: (url: string) => void
  /** Leaving with work in the queue: how, or not after all. */
  quit: (when: 'after-current' | 'now' | 'stay') => void
  /** Puts a picture on the clipboard. */
  copyImage: (file: string) => void | Promise<void>
  /** Files that are being dragged out of the window. */
  dragOut: (files: string[]) => void
  /** The commands of the window, for the native menu. */
  setMenu: (commands: MenuCommand[]) => void
  /** Electron and Chromium, where it runs in them. */
  runtime: About['runtime']
  battery: () => About['abilities']['battery']
}

/** Without a window system: as the command line and the test host have it. */
export const noDesktop: Desktop = {
  openLink: () => {},
  quit: () => {},
  copyImage: () => {},
  dragOut: () => {},
  setMenu: () => {},
  runtime: [],
  battery: () => ({ isThere: false, reason: 'This computer has no battery.' }),
}

export type AppParts = {
  version: string
  home: string
  logFile: string
  desktop: Desktop
  settings: SettingsStore
  storage: Storage
  dialogs: Dialogs
  device: () => DeviceReport | undefined
  reveal: (file: string) => void
  emptyBin: () => Promise<void>
  /** How many of each there are, and words that stay out of every file: prompts, names. */
  census: () => Promise<{ counts: Record<string, number>; secrets: string[] }>
}

/** This much of the end of the log is in a diagnostics file. */
const logBytes = 64_000

export function appHandlers(parts: AppParts): HandlersOf<typeof appRequests> {
  const { version, home, logFile, desktop, settings, storage, dialogs, device, reveal, emptyBin, census } = parts
  const aboutNow = () => about({ version, home, runtime: desktop.runtime, battery: desktop.battery() })
  const diagnostics = async (hasPaths: boolean) =>
    diagnosticsText({
      about: aboutNow(),
      device: device(),
      settings: settings.get(),
      ...(await census()),
      log: await endOf(logFile),
      hasPaths,
    })
  return {
    'app:openLink': ({ url }) => desktop.openLink(url),
    'app:quit': ({ when }) => desktop.quit(when),
    'app:menu': ({ commands }) => desktop.setMenu(commands),
    'app:about': aboutNow,
    'app:showLog': () => reveal(logFile),
    'app:diagnostics': async ({ hasPaths }) => ({ text: await diagnostics(hasPaths) }),
    'app:saveDiagnostics': async ({ hasPaths }) => {
      const file = await dialogs.saveAs('vignette-diagnostics.txt')
      if (file === undefined) return {}
      await writeAtomic(file, await diagnostics(hasPaths))
      return { file }
    },
    'storage:measure': () => void storage.measure(),
    'storage:cancel': () => storage.cancel(),
    'storage:show': ({ id }) => reveal(storage.pathOf(id)),
    'storage:emptyBin': async () => {
      await emptyBin()
      void storage.measure()
    },
  }
}

/** The last whole lines of a text file. */
async function endOf(file: string): Promise<string> {
  const handle = await open(file, 'r').catch(() => undefined)
  if (!handle) return ''
  try {
    const { size } = await handle.stat()
    const start = Math.max(0, size - logBytes)
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(size - start), 0, size - start, start)
    const text = buffer.toString('utf8', 0, bytesRead)
    return start === 0 ? text : text.slice(text.indexOf('\n') + 1)
  } finally {
    await handle.close()
  }
}
