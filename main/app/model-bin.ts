import { randomUUID } from 'node:crypto'
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'

// Models that were removed lie beside the others, on the same disk, where taking one away or bringing it back moves nothing.

export const binName = '.bin'
const dayMs = 86_400_000

/** Moves a model folder into the bin; the id that is returned brings it back. */
export async function binModel(modelsFolder: string, folder: string): Promise<string> {
  const undoId = randomUUID()
  const place = join(modelsFolder, binName, undoId)
  await mkdir(place, { recursive: true })
  await rename(folder, join(place, basename(folder)))
  return undoId
}

/** Brings it back and gives its name; undefined when it is not in the bin, or its place is taken. */
export async function unbinModel(modelsFolder: string, undoId: string): Promise<string | undefined> {
  if (!/^[0-9a-f-]{36}$/.test(undoId)) return undefined
  const place = join(modelsFolder, binName, undoId)
  const [name] = await readdir(place).catch((): string[] => [])
  if (name === undefined) return undefined
  const isTaken = await stat(join(modelsFolder, name)).then(
    () => true,
    () => false,
  )
  if (isTaken) return undefined
  await rename(join(place, name), join(modelsFolder, name))
  await rm(place, { recursive: true })
  return name
}

/** Deletes what has been in the bin for longer than that. */
export async function clearModelBin(modelsFolder: string, days: number): Promise<void> {
  const bin = join(modelsFolder, binName)
  for (const undoId of await readdir(bin).catch((): string[] => [])) {
    const { mtimeMs } = await stat(join(bin, undoId))
    if (Date.now() - mtimeMs >= days * dayMs) await rm(join(bin, undoId), { recursive: true, force: true })
  }
}
