import type { AppEvent } from '../../preload/contract.ts'
import type { AdapterNotebook } from './adapter-notebook.ts'
import type { Log } from './log.ts'

/** Tells the notebook which adapters finished pictures were made with, and which of those are samples; each job once. */
export function noteUses(
  notebook: Pick<AdapterNotebook, 'noteUse' | 'noteSample'>,
  log: Log,
): (event: AppEvent) => void {
  const noted = new Set<string>()
  return (event) => {
    if (event.type !== 'jobs:changed') return
    for (const { id, status, imageId, source, request } of event.jobs) {
      if (status !== 'done' || imageId === undefined || request.adapters.length === 0 || noted.has(id)) continue
      noted.add(id)
      const ids = request.adapters.map(({ file }) => file)
      const isSample = source === 'sample'
      void (isSample ? notebook.noteSample(ids[0], imageId) : notebook.noteUse(ids, Date.now())).catch(
        (error: unknown) => log.warn('the use of an adapter could not be noted', error),
      )
    }
  }
}
