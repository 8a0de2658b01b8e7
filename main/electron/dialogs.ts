import * as electron from 'electron'
import { clipboard, dialog, nativeImage, type NativeImage } from 'electron'
import { VignetteError } from '../../models/errors.ts'
import type { Dialogs } from '../app/services.ts'

/** The system's own panels for choosing files. */
export const dialogs: Dialogs = {
  async choose(what) {
    if (what === 'pictures') {
      const { filePaths } = await dialog.showOpenDialog({
        title: 'Add pictures to the gallery',
        properties: ['openFile', 'multiSelections'],
        filters: [
          { name: 'Pictures', extensions: ['png', 'jpg', 'jpeg', 'webp', 'avif', 'gif'] },
          { name: 'All files', extensions: ['*'] },
        ],
      })
      return filePaths
    }
    const { filePaths } = await dialog.showOpenDialog(
      what === 'folder'
        ? { title: 'Link a folder of adapters', properties: ['openDirectory'] }
        : {
            title: 'Add adapters',
            properties: ['openFile', 'multiSelections'],
            filters: [
              { name: 'Adapters', extensions: ['safetensors'] },
              { name: 'All files', extensions: ['*'] },
            ],
          },
    )
    return filePaths
  },
  async saveAs(name) {
    const { filePath } = await dialog.showSaveDialog({ defaultPath: name })
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
