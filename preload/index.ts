import { contextBridge, ipcRenderer, webUtils } from 'electron'
import type { AppEvent, Bridge } from './contract.ts'

const bridge: Bridge = {
  invoke: (name, input) => ipcRenderer.invoke(name, input),
  onEvent(listener) {
    const forward = (_: unknown, event: AppEvent) => listener(event)
    ipcRenderer.on('event', forward)
    return () => void ipcRenderer.off('event', forward)
  },
  // Electron before 29 has no webUtils and puts the path on the file itself.
  pathOf: (file) =>
    (webUtils as typeof webUtils | undefined)?.getPathForFile(file) ?? (file as File & { path?: string }).path ?? '',
}

contextBridge.exposeInMainWorld('vignette', bridge)
