import { access } from 'node:fs/promises'
import { extname, join } from 'node:path'
import type { AdapterRecord } from '../../preload/contract/adapters.ts'
import { writeAtomic } from './files.ts'

/**
 * Writes what the library knows of adapters as files that other programs read (`<name>.json` with the fields of the
 * A1111 family), into a folder that the person chose. What is there already is left as it is, and named.
 */
export async function exportNotes(
  records: readonly AdapterRecord[],
  folder: string,
): Promise<{ written: number; skipped: string[] }> {
  let written = 0
  const skipped: string[] = []
  for (const record of records) {
    const name = `${record.fileName.slice(0, record.fileName.length - extname(record.fileName).length)}.json`
    const file = join(folder, name)
    const isTaken = await access(file).then(
      () => true,
      () => false,
    )
    if (isTaken) {
      skipped.push(name)
      continue
    }
    await writeAtomic(file, `${JSON.stringify(notesOf(record), null, 2)}\n`)
    written++
  }
  return { written, skipped }
}

export function notesOf(record: AdapterRecord): Record<string, unknown> {
  const { name, triggers, preferredWeight, notes, description, tags, collections, rating, familyName, weightRange } =
    record
  const { sourceLink, licence, isFavourite, isMature, hash, role } = record
  return {
    'activation text': triggers.join(', '),
    'preferred weight': preferredWeight ?? 0, // 0 where nobody has said anything, as those programs write it
    ...(notes || description ? { notes: notes ?? description } : {}),
    ...(description ? { description } : {}),
    vignette: {
      name,
      tags,
      collections,
      rating,
      familyName,
      weightRange,
      sourceLink,
      licence,
      isFavourite,
      isMature,
      hash,
      role,
    },
  }
}
