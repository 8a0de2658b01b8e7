import { BrowserWindow, ipcMain, type IpcMainInvokeEvent } from 'electron'
import { requests, type AppEvent, type RequestName } from '../../preload/contract.ts'
import { answer } from '../app/answer.ts'
import type { Services } from '../app/services.ts'

/**
 * Registers every request of the contract. Only the main frame of a window of ours is answered. `onState` hears when a
 * window has asked for the state: from then on it hears events.
 */
export function registerRequests(services: Services, onState: () => void): void {
  for (const name of Object.keys(requests) as RequestName[]) {
    ipcMain.handle(name, (event, raw: unknown) => {
      if (!isOurs(event)) throw new Error('refused')
      if (name === 'app:state') setImmediate(onState)
      return answer(services.handlers, name, raw, (request, error) => services.log.error(request, error))
    })
  }
}

/** Tells every window. One that is just closing hears nothing. */
export function sendEvent(event: AppEvent): void {
  for (const window of BrowserWindow.getAllWindows()) {
    if (!window.isDestroyed() && !window.webContents.isDestroyed()) window.webContents.send('event', event)
  }
}

function isOurs(event: IpcMainInvokeEvent): boolean {
  const window = BrowserWindow.fromWebContents(event.sender)
  return window !== null && event.senderFrame === event.sender.mainFrame
}
