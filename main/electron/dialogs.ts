import { dialog } from 'electron'
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
