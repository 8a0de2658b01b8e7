/** A file that may have the same content as others, and the full hash of it where that is known. */
export type TwinCandidate = { id: string; print: string; hash?: string }

/**
 * Which files are duplicates: by id, a word that those of one content share. Files whose quick prints agree are taken for
 * the same until their full hashes, where both are known, say otherwise.
 */
export function twinsOf(all: readonly TwinCandidate[]): Map<string, string> {
  const groups = new Map<string, TwinCandidate[]>()
  for (const one of all) groups.set(one.print, [...(groups.get(one.print) ?? []), one])
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
