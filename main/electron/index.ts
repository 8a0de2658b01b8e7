import { app, BrowserWindow, dialog, shell } from 'electron'
import { join } from 'node:path'
import { reportError } from '../../models/errors.ts'
import { version } from '../../package.json'
import { createServices, vignetteHome, type Services } from '../app/services.ts'
import { EngineClient } from '../engine/client.ts'
import { copyImage, dialogs } from './dialogs.ts'
import { setUp, startEngine, startModelWorker, startPictures } from './engine-process.ts'
import { registerSchemes, serveSchemes } from './images-protocol.ts'
import { registerRequests, sendEvent } from './ipc.ts'
import { setMenu } from './menu.ts'
import { lockPages, openWindow, showProgress } from './window.ts'

// The window starts here: single instance, paths, services, window, menu.

app.setName('Vignette')
// Chromium's own files lie beside ours, so that VIGNETTE_HOME moves everything.
app.setPath('userData', join(vignetteHome(), 'window'))
registerSchemes()
// Failures on purpose are for tests (main/engine/fail.ts).
if (app.isPackaged) delete process.env.VIGNETTE_E2E

/** Files of our other processes: in a packaged application they lie beside the archive that holds this one. */
const besides = __dirname.replace(/app\.asar(?=[\\/])/, 'app.asar.unpacked')

if (app.requestSingleInstanceLock()) void start()
else app.quit()

async function start(): Promise<void> {
  try {
    await app.whenReady()
    const engine = new EngineClient(() => startEngine(join(besides, 'engine.cjs')))
    const services = await createServices({
      version,
      engine,
      install: (modelsFolder) => setUp(join(besides, 'set-up.cjs'), modelsFolder),
      modelWorker: () => startModelWorker(join(besides, 'model-worker.cjs')),
      promptWorker: join(besides, 'prompt-worker.cjs'),
      desktop: { copyImage },
      pictureWorker: () => startPictures(join(besides, 'picture-worker.cjs')),
      adapterWorker: join(besides, 'adapter-worker.cjs'),
      reveal: (file) => shell.showItemInFolder(file),
      dialogs,
      emit(event) {
        sendEvent(event)
        if (event.type === 'jobs:changed') event.jobs.forEach(showProgress)
      },
    })
    lockPages(services.log)
    serveSchemes(join(__dirname, '../renderer'), services.pictures)
    registerRequests(services)
    setMenu()
    closeInOrder(services)
    await openWindow(services.settings)
    app.on('second-instance', focusWindow)
    app.on('activate', () => {
      if (BrowserWindow.getAllWindows().length === 0) void openWindow(services.settings)
    })
    await services.warmUp()
  } catch (error) {
    const { message, hint } = reportError(error)
    dialog.showErrorBox('Vignette cannot start', hint === undefined ? message : `${message}\n\n${hint}`)
    app.exit(1)
  }
}

function focusWindow(): void {
  const [window] = BrowserWindow.getAllWindows()
  if (!window) return
  if (window.isMinimized()) window.restore()
  window.focus()
}

/** Quitting waits until the queue is written and the engine has ended; the queue goes on at the next start. */
function closeInOrder(services: Services): void {
  let isClosed = false
  app.on('before-quit', (event) => {
    if (isClosed) return
    event.preventDefault()
    void services.close().finally(() => {
      isClosed = true
      app.quit()
    })
  })
  app.on('window-all-closed', () => {
    if (process.platform !== 'darwin') app.quit()
  })
}
