import { breaths } from './breath.ts'

/** A file that may have the same content as others, and the full hash of it where that is known. */
export type TwinCandidate = { id: string; print: string; hash?: string }

/**
 * Which files are duplicates: by id, a word that those of one content share. Files whose quick prints agree are taken for
 * the same until their full hashes, where both are known, say otherwise.
 */
export async function twinsOf(all: readonly TwinCandidate[]): Promise<Map<string, string>> {
  const breathe = breaths()
  const groups = new Map<string, TwinCandidate[]>()
  for (const one of all) {
    const group = groups.get(one.print)
    if (group) group.push(one)
    else groups.set(one.print, [one])
    await breathe()
  }
  const twins = new Map<string, string>()
  for (const [print, group] of groups) {
    if (group.length < 2) continue
    const isSure = group.every(({ hash }) => hash !== undefined)
    for (const { id, hash } of group) {
      if (!isSure) twins.set(id, print)
      else if (group.filter((other) => other.hash === hash).length > 1) twins.set(id, hash!)
    }
  }
  return twins
}
