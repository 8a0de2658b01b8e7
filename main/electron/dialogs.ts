import * as electron from 'electron'
import { BrowserWindow, clipboard, dialog, nativeImage, type NativeImage, type OpenDialogOptions } from 'electron'
import { VignetteError } from '../../models/errors.ts'
import type { Dialogs } from '../app/services.ts'

const all = { name: 'All files', extensions: ['*'] }
const panels: Record<Parameters<Dialogs['choose']>[0], OpenDialogOptions> = {
  folder: { title: 'Link a folder of adapters', properties: ['openDirectory'] },
  files: {
    title: 'Add adapters',
    properties: ['openFile', 'multiSelections'],
    filters: [{ name: 'Adapters', extensions: ['safetensors'] }, all],
  },
  settings: {
    title: 'Import settings',
    properties: ['openFile'],
    filters: [{ name: 'Settings', extensions: ['json'] }, all],
  },
  pictures: {
    title: 'Add pictures to the gallery',
    properties: ['openFile', 'multiSelections'],
    filters: [{ name: 'Pictures', extensions: ['png', 'jpg', 'jpeg', 'webp', 'avif', 'gif'] }, all],
  },
  models: {
    title: 'Add models',
    properties: ['openFile', 'multiSelections'],
    filters: [{ name: 'Models', extensions: ['safetensors', 'sft'] }, all],
  },
  'model-folder': { title: 'Add a model folder', properties: ['openDirectory'] },
}

/** The system's own panels for choosing files. They belong to the window, which waits for them. */
export const dialogs: Dialogs = {
  async choose(what) {
    const [window] = BrowserWindow.getAllWindows()
    const { filePaths } = await (window
      ? dialog.showOpenDialog(window, panels[what])
      : dialog.showOpenDialog(panels[what]))
    return filePaths
  },
  async saveAs(name) {
    const [window] = BrowserWindow.getAllWindows()
    const options = { defaultPath: name }
    const { filePath } = await (window ? dialog.showSaveDialog(window, options) : dialog.showSaveDialog(options))
    return filePath || undefined
  },
}

/** Puts a picture on the clipboard. */
export async function copyImage(file: string): Promise<void> {
  const image = nativeImage.createFromPath(file)
  if (image.isEmpty()) {
    throw new VignetteError('file-unreadable', 'This kind of picture cannot be copied to the clipboard.', {
      hint: 'Show it in its folder and copy the file instead.',
    })
  }
  // Older Electron has a call of its own for it.
  const older = clipboard as unknown as { writeImage?: (image: NativeImage) => void }
  if (older.writeImage) older.writeImage(image)
  else await clipboard.write([new electron.ClipboardItem({ 'image/png': new Blob([new Uint8Array(image.toPNG())]) })])
}

/** Goes on with a drag that began in the window: from here on the system carries the files. */
export function dragOut(files: string[]): void {
  const window = BrowserWindow.getFocusedWindow() ?? BrowserWindow.getAllWindows()[0]
  const [file] = files
  if (!window || file === undefined) return
  const icon = nativeImage.createFromPath(file)
  // Without a picture to show under the pointer macOS refuses, and others show nothing.
  window.webContents.startDrag({ file, files, icon: icon.isEmpty() ? icon : icon.resize({ height: 96 }) })
}
