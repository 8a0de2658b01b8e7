import { mkdir, readdir, readFile, stat } from 'node:fs/promises'
import { join, resolve, sep } from 'node:path'

/** Read in main: what is larger would hold the window up. */
const maxBytes = 1 << 20
const maxDepth = 6

type List = { lines: string[]; names: string[] }

/**
 * Text files of the person's, one entry a line, that `__name__` in a prompt takes one of. They may lie in subfolders, as
 * `__animals/cat__`. Read anew when they change.
 */
export class PromptLists {
  readonly folder: string
  readonly #read = new Map<string, List & { stamp: number }>()

  constructor(folder: string) {
    this.folder = resolve(folder)
  }

  /** All names, sorted. Makes the folder, so that it can be opened and filled. */
  async names(): Promise<string[]> {
    await mkdir(this.folder, { recursive: true })
    const found: string[] = []
    const look = async (path: string, depth: number): Promise<void> => {
      for (const entry of await readdir(join(this.folder, path), { withFileTypes: true })) {
        const name = path === '' ? entry.name : `${path}/${entry.name}`
        if (entry.isDirectory() && depth < maxDepth) await look(name, depth + 1)
        else if (entry.isFile() && /\.txt$/i.test(name)) found.push(name.replace(/\.txt$/i, ''))
      }
    }
    await look('', 0)
    return found.sort()
  }

  /** The lists that a text names, and those that they name, by their names. */
  async load(names: readonly string[], namesIn: (line: string) => string[]): Promise<Map<string, string[]>> {
    const lists = new Map<string, string[]>()
    const queue = [...names]
    for (let name; (name = queue.shift()) !== undefined;) {
      if (lists.has(name)) continue
      const list = await this.#list(name, namesIn)
      if (!list) continue
      lists.set(name, list.lines)
      queue.push(...list.names)
    }
    return lists
  }

  async #list(name: string, namesIn: (line: string) => string[]): Promise<List | undefined> {
    const file = resolve(this.folder, `${name}.txt`)
    if (!file.startsWith(this.folder + sep)) return undefined // a prompt reaches nothing outside the folder
    try {
      const { mtimeMs, size } = await stat(file)
      if (size > maxBytes) return undefined
      const known = this.#read.get(file)
      if (known?.stamp === mtimeMs) return known
      const text = await readFile(file, 'utf8')
      const lines = text.split(/\r?\n/).flatMap((line) => {
        const entry = line.trim()
        return entry === '' || entry.startsWith('#') ? [] : [entry]
      })
      const names = [...new Set(lines.filter((line) => line.includes('__')).flatMap(namesIn))]
      const list = { stamp: mtimeMs, lines, names }
      this.#read.set(file, list)
      return list
    } catch {
      return undefined // there is no such list: whoever asked says so
    }
  }
}
