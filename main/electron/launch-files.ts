import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

/**
 * The files among the arguments of a start. Switches of ours and of Chromium's are left out; a name that nothing has is
 * no file. In development the first argument is the application's own folder.
 */
export function launchFiles(argv: readonly string[], options: { folder: string; isPackaged: boolean }): string[] {
  const { folder, isPackaged } = options
  const rest = argv.slice(1)
  if (!isPackaged) {
    const own = rest.findIndex((argument) => !argument.startsWith('-'))
    if (own >= 0) rest.splice(own, 1)
  }
  const end = rest.indexOf('--')
  const named = rest.filter((argument, i) => argument !== '' && (!argument.startsWith('-') || (end >= 0 && i > end)))
  return named
    .map((argument) => pathOf(argument, folder))
    .filter((path) => path !== undefined && existsSync(path)) as string[]
}

/** File managers hand over addresses, terminals names below the folder they are in. */
function pathOf(argument: string, folder: string): string | undefined {
  if (!/^[a-z][a-z+.-]+:\/\//i.test(argument)) return resolve(folder, argument)
  try {
    return fileURLToPath(argument) // throws for anything but file:
  } catch {
    return undefined
  }
}
