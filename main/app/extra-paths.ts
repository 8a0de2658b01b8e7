import { isAbsolute, resolve } from 'node:path'

/** One `kind: folder` of a section, made absolute. */
export type ExtraPath = { kind: string; path: string }

/**
 * Reads ComfyUI's `extra_model_paths.yaml`: sections with an optional `base_path`, and below it kinds with a folder, or
 * with several on lines of a `|` block. Only this much of YAML is understood; a line that is anything else is passed
 * over, because half a list of folders is better than none. `folder` is where the file lies.
 */
export function readExtraPaths(text: string, folder: string): ExtraPath[] {
  const found: ExtraPath[] = []
  let section: { base: string; entries: ExtraPath[] } | undefined
  let block: { kind: string; indent: number } | undefined
  const close = () => {
    for (const { kind, path } of section?.entries ?? []) {
      const base = section!.base === '' ? folder : absolute(folder, section!.base)
      found.push({ kind, path: absolute(base, path) })
    }
    section = undefined
    block = undefined
  }
  for (const raw of text.split(/\r?\n/)) {
    const line = raw.replace(/\s+#.*$|^\s*#.*$/, '').trimEnd()
    if (line.trim() === '') continue
    const indent = line.length - line.trimStart().length
    if (block && indent > block.indent) {
      section?.entries.push({ kind: block.kind, path: unquoted(line.trim()) })
      continue
    }
    block = undefined
    const [, key, value] = /^\s*([\w-]+)\s*:\s*(.*)$/.exec(line) ?? []
    if (key === undefined) continue
    if (indent === 0) {
      close()
      if (value === '') section = { base: '', entries: [] }
    } else if (section && /^[|>][+-]?$/.test(value)) block = { kind: key, indent }
    else if (section && key === 'base_path') section.base = unquoted(value)
    else if (section && value !== '') section.entries.push({ kind: key, path: unquoted(value) })
  }
  close()
  return found
}

const unquoted = (value: string) => value.replace(/^(['"])(.*)\1$/, '$2')

/** A home folder written as `~` is what people type; every other path is taken as it stands. */
function absolute(base: string, path: string): string {
  const full = path.startsWith('~/') && process.env.HOME ? path.replace('~', process.env.HOME) : path
  return isAbsolute(full) ? resolve(full) : resolve(base, full)
}
