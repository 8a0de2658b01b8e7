import { app, BrowserWindow, dialog, nativeTheme, screen, session, type WebContents } from 'electron'
import { join } from 'node:path'
import type { SettingsStore, WindowBounds } from '../app/settings.ts'
import type { Log } from '../app/log.ts'
import { appScheme, appUrl, imageScheme } from './security.ts'

const defaultSize = { width: 1360, height: 860 }
const minimumSize = { width: 1024, height: 640 }
const saveDelayMs = 500
const maxCrashesAMinute = 3

/** Opens the window where it was left. Resolves once it has something to show. */
export async function openWindow({ settings, log }: { settings: SettingsStore; log: Log }): Promise<BrowserWindow> {
  const bounds = visibleBounds(settings.bounds())
  const window = new BrowserWindow({
    ...defaultSize,
    ...bounds,
    minWidth: minimumSize.width,
    minHeight: minimumSize.height,
    show: false,
    title: 'Vignette',
    // The first frame, before the page has painted: the same two colours as `--ground` in tokens.css.
    backgroundColor: nativeTheme.shouldUseDarkColors ? '#16171b' : '#f4f2ee',
    webPreferences: {
      preload: join(__dirname, '../preload/index.cjs'),
      sandbox: true,
      contextIsolation: true,
      nodeIntegration: false,
      webSecurity: true,
      webviewTag: false,
      navigateOnDragDrop: false,
      spellcheck: false, // its dictionaries come from the network
    },
  })
  if (bounds?.isMaximized) window.maximize()
  rememberBounds(window, settings)
  reviveAfterCrash(window, log)
  window.once('ready-to-show', () => window.show())
  await window.loadURL(process.env.ELECTRON_RENDERER_URL ?? appUrl)
  return window
}

/** No page of ours ever goes anywhere else, opens a window, or gets a permission beyond writing to the clipboard. */
export function lockPages(log: Log): void {
  const isOurs = (url: string) => url.startsWith(appUrl) || (devServer() !== undefined && url.startsWith(devServer()!))
  app.on('web-contents-created', (_, contents) => {
    const stay = (event: { preventDefault(): void }, url: string) => {
      if (isOurs(url)) return
      log.warn(`a page was kept from going to ${url}`)
      event.preventDefault()
    }
    contents.on('will-navigate', (event, url) => stay(event, url))
    contents.on('will-redirect', (event, url) => stay(event, url))
    contents.on('will-attach-webview', (event) => event.preventDefault())
    logConsole(contents, log)
    contents.setWindowOpenHandler(({ url }) => {
      log.warn(`a page was kept from opening ${url}`)
      return { action: 'deny' }
    })
  })
  const { defaultSession } = session
  const mayHave = (permission: string) => permission === 'clipboard-sanitized-write'
  defaultSession.setPermissionRequestHandler((_, permission, decide) => {
    if (!mayHave(permission)) log.warn(`a page was refused the permission "${permission}"`)
    decide(mayHave(permission))
  })
  defaultSession.setPermissionCheckHandler((_, permission) => mayHave(permission))
  defaultSession.setDevicePermissionHandler(() => false)
  // A download would write where the page says; what the person saves goes through the system's panel.
  defaultSession.on('will-download', (event, item) => {
    log.warn(`a page was kept from saving ${item.getURL().slice(0, 200)}`)
    event.preventDefault()
  })
  defaultSession.webRequest.onBeforeRequest((details, decide) => {
    const { protocol, origin } = new URL(details.url)
    const isLocal = [`${appScheme}:`, `${imageScheme}:`, 'data:', 'blob:', 'devtools:', 'chrome-extension:'].includes(
      protocol,
    )
    const isDev = devServer() !== undefined && origin.replace(/^ws/, 'http') === new URL(devServer()!).origin
    if (!isLocal && !isDev) log.warn(`a page was kept from loading ${details.url}`)
    decide({ cancel: !isLocal && !isDev })
  })
}

/** What the page calls an error, refused content among it, is in the log as well. */
function logConsole(contents: WebContents, log: Log): void {
  // Electron 35 and later put it all into the event; before, the level is a number and 3 an error.
  type Message = { level?: string; message?: string }
  const listener = (event: Message, level?: number, message?: string) => {
    const text = event.message ?? message ?? ''
    if (event.level === 'error' || level === 3) log.warn(`the page says: ${text.slice(0, 500)}`)
  }
  contents.on('console-message', listener as never)
}

/** A page that has died is opened again: the queue goes on without it, and what it knew comes from here. */
function reviveAfterCrash(window: BrowserWindow, log: Log): void {
  const crashes: number[] = []
  window.webContents.on('render-process-gone', (_, { reason, exitCode }) => {
    if (reason === 'clean-exit' || window.isDestroyed()) return
    log.error(`the window's page ended: ${reason} (${exitCode})`)
    crashes.push(Date.now())
    const isHopeless = crashes.filter((at) => Date.now() - at < 60_000).length > maxCrashesAMinute
    if (isHopeless) {
      dialog.showErrorBox('The window cannot be shown', 'Start Vignette again. Pictures and queue are safe.')
      app.quit()
    } else setImmediate(() => !window.isDestroyed() && window.webContents.reload())
  })
  window.on('unresponsive', () => log.warn("the window's page does not answer"))
}

/** Set by `npm run dev` alone. */
function devServer(): string | undefined {
  return app.isPackaged ? undefined : process.env.ELECTRON_RENDERER_URL
}

function rememberBounds(window: BrowserWindow, settings: SettingsStore): void {
  let timer: NodeJS.Timeout | undefined
  const save = () => {
    clearTimeout(timer)
    timer = setTimeout(() => {
      if (!window.isDestroyed())
        void settings.saveBounds({ ...window.getNormalBounds(), isMaximized: window.isMaximized() })
    }, saveDelayMs)
  }
  window.on('resize', save)
  window.on('move', save)
  window.on('maximize', save)
  window.on('unmaximize', save)
}

/** The stored bounds when a good part of them lies on a screen that is there; else undefined, which centres. */
function visibleBounds(bounds: WindowBounds | undefined): WindowBounds | undefined {
  if (bounds === undefined) return undefined
  const isVisible = screen.getAllDisplays().some(({ workArea }) => {
    const width = Math.min(bounds.x + bounds.width, workArea.x + workArea.width) - Math.max(bounds.x, workArea.x)
    const height = Math.min(bounds.y + bounds.height, workArea.y + workArea.height) - Math.max(bounds.y, workArea.y)
    return width > bounds.width / 3 && height > bounds.height / 3
  })
  return isVisible ? bounds : undefined
}
