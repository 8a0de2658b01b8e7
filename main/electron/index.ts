import { app, BrowserWindow, dialog, shell } from 'electron'
import { join, resolve } from 'node:path'
import { reportError } from '../../models/errors.ts'
import { version } from '../../package.json'
import type { AppEvent } from '../../preload/contract.ts'
import { createServices, vignetteHome } from '../app/services.ts'
import { EngineClient } from '../engine/client.ts'
import { Background, focusWindow } from './background.ts'
import { BatteryWatch } from './battery.ts'
import { copyImage, dialogs, dragOut } from './dialogs.ts'
import { setUp, startEngine, startModelWorker, startPictures } from './engine-process.ts'
import { registerSchemes, serveSchemes } from './images-protocol.ts'
import { registerRequests, sendEvent } from './ipc.ts'
import { launchFiles } from './launch-files.ts'
import { Leave } from './leave.ts'
import { setMenu } from './menu.ts'
import { lockPages, openWindow } from './window.ts'

// The window starts here: single instance, paths, services, window, menu.

app.setName('Vignette')
// Chromium's own files lie beside ours, so that VIGNETTE_HOME moves everything.
app.setPath('userData', join(vignetteHome(), 'window'))
// Root alone cannot have the sandbox: see rootArguments in scripts/electron-runtime.ts.
if (!app.commandLine.hasSwitch('no-sandbox')) app.enableSandbox()
// Nobody looks into a released window from outside.
if (app.isPackaged)
  for (const name of ['remote-debugging-port', 'remote-debugging-pipe', 'remote-debugging-address'])
    app.commandLine.removeSwitch(name)
// Failures on purpose are for tests (main/engine/fail.ts).
if (app.isPackaged) delete process.env.VIGNETTE_E2E
registerSchemes()

/** Files of our other processes: in a packaged application they lie beside the archive that holds this one. */
const besides = __dirname.replace(/app\.asar(?=[\\/])/, 'app.asar.unpacked')

/** Files that were handed over before a window could take them. */
let waitingFiles = launchFiles(process.argv, { folder: process.cwd(), isPackaged: app.isPackaged })
let isWindowListening = false

function handOver(files: readonly string[]): void {
  waitingFiles.push(...files)
  if (!isWindowListening || waitingFiles.length === 0) return
  sendEvent({ type: 'app:files', files: waitingFiles })
  waitingFiles = []
}

// macOS hands files over this way, also before the application is ready.
app.on('open-file', (event, path) => {
  event.preventDefault()
  handOver([resolve(path)])
})

// The second start tells its files itself: Chromium changes the order of arguments on their way.
if (app.requestSingleInstanceLock({ files: waitingFiles })) void start()
else app.quit()

async function start(): Promise<void> {
  try {
    await app.whenReady()
    const engine = new EngineClient(() => startEngine(join(besides, 'engine.cjs')))
    // They need the services, which tell them of events from the first moment.
    const parts: { background?: Background; leave?: Leave; battery?: BatteryWatch } = {}
    const emit = (event: AppEvent) => {
      sendEvent(event)
      parts.background?.apply(event)
    }
    const run = (id: string) => (focusWindow(), sendEvent({ type: 'app:command', id }))
    const services = await createServices({
      version,
      engine,
      install: (modelsFolder) => setUp(join(besides, 'set-up.cjs'), modelsFolder),
      modelWorker: () => startModelWorker(join(besides, 'model-worker.cjs')),
      promptWorker: join(besides, 'prompt-worker.cjs'),
      pictureWorker: () => startPictures(join(besides, 'picture-worker.cjs')),
      adapterWorker: join(besides, 'adapter-worker.cjs'),
      reveal: (file) => shell.showItemInFolder(file),
      desktop: {
        copyImage,
        dragOut,
        openLink: (url) => void shell.openExternal(url),
        quit(when) {
          if (when === 'stay') parts.background?.stayAwake()
          parts.leave?.answer(when)
        },
        setMenu: (commands) => setMenu(commands, run),
        runtime: [
          { name: 'Electron', version: process.versions.electron },
          { name: 'Chromium', version: process.versions.chrome },
        ],
        battery: () => parts.battery?.ability() ?? { isThere: false },
      },
      dialogs,
      emit,
      onIdle: () => parts.background?.idle(),
    })
    const background = (parts.background = new Background(services, sendEvent))
    background.start(services.jobs.list())
    const leave = (parts.leave = new Leave(services, background.progress, sendEvent))
    const battery = (parts.battery = new BatteryWatch(services))
    lockPages(services.log)
    serveSchemes(join(__dirname, '../renderer'), services.pictures)
    registerRequests(services, () => {
      isWindowListening = true
      handOver([])
    })
    setMenu([], run)
    const open = async () => leave.guard(await openWindow(services))
    app.on('second-instance', (_, _argv, _folder, data) => {
      focusWindow()
      const files = (data as { files?: unknown } | undefined)?.files
      if (Array.isArray(files)) handOver(files.filter((file): file is string => typeof file === 'string'))
    })
    app.on('activate', () => {
      if (BrowserWindow.getAllWindows().length === 0) void open()
    })
    app.on('browser-window-created', () => (isWindowListening = false))
    await open()
    battery.start()
    await services.warmUp()
  } catch (error) {
    const { message, hint } = reportError(error)
    dialog.showErrorBox('Vignette cannot start', hint === undefined ? message : `${message}\n\n${hint}`)
    app.exit(1)
  }
}
