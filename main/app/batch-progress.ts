import type { AppEvent } from '../../preload/contract.ts'
import type { Job } from '../../preload/contract/jobs.ts'

type Known = Pick<Job, 'id' | 'batchId' | 'batchSize' | 'status'> & { share: number }

/** How far what runs is, seen from outside the window: a batch is one thing, however many pictures it has. */
export class BatchProgress {
  /** Jobs that wait or run; what is over is only missing. */
  readonly #open = new Map<string, Known>()

  replace(jobs: readonly Job[]): void {
    this.#open.clear()
    for (const job of jobs) this.#put(job)
  }

  apply(event: AppEvent): void {
    if (event.type === 'jobs:changed') for (const job of event.jobs) this.#put(job)
    else if (event.type === 'jobs:gone') for (const id of event.ids) this.#open.delete(id)
  }

  get isRunning(): boolean {
    return this.#running() !== undefined
  }

  /** Something waits or runs. */
  get hasWork(): boolean {
    return this.#open.size > 0
  }

  /** 0 to 1 of the batch that runs; undefined when none does. */
  get share(): number | undefined {
    const running = this.#running()
    if (running === undefined) return undefined
    let open = 0
    for (const { batchId } of this.#open.values()) if (batchId === running.batchId) open++
    return Math.min(1, Math.max(0, (running.batchSize - open + running.share) / running.batchSize))
  }

  #running(): Known | undefined {
    for (const job of this.#open.values()) if (job.status === 'running') return job
    return undefined
  }

  #put({ id, batchId, batchSize, status, step, steps }: Job): void {
    if (status === 'waiting' || status === 'running')
      this.#open.set(id, { id, batchId, batchSize, status, share: step / Math.max(1, steps) })
    else this.#open.delete(id)
  }
}

/** One message a batch, not one a picture. */
export function batchMessage(done: number, failed: number): { title: string; body: string } {
  const pictures = (n: number) => (n === 1 ? '1 picture' : `${n} pictures`)
  if (done === 0) return { title: `${pictures(failed)} could not be made`, body: 'The queue says why.' }
  const title = done === 1 ? 'Your picture is ready' : `${pictures(done)} are ready`
  if (failed > 0) return { title, body: `${pictures(failed)} could not be made.` }
  return { title, body: done === 1 ? 'It is in the gallery.' : 'They are in the gallery.' }
}
