import { app, BrowserWindow, Notification, powerMonitor, powerSaveBlocker } from 'electron'
import type { AppEvent } from '../../preload/contract.ts'
import type { Job, QueueState } from '../../preload/contract/jobs.ts'
import { BatchProgress } from '../app/batch-progress.ts'
import type { Log } from '../app/log.ts'
import { sleepAbility, sleepNow } from '../app/sleep.ts'

/** The person can still say no. */
const sleepGraceMs = 30_000

/** What the system sees of the queue: the bar on the icon, a message when a batch is over, the computer kept awake. */
export class Background {
  readonly progress = new BatchProgress()
  readonly #emit: (event: AppEvent) => void
  readonly #log: Log
  #blocker: number | undefined
  #shown: number | undefined
  #queue: QueueState | undefined
  #sleeping: NodeJS.Timeout | undefined
  #shouldSleep = false

  constructor(options: { emit: (event: AppEvent) => void; log: Log }) {
    this.#emit = options.emit
    this.#log = options.log
  }

  start(jobs: readonly Job[], queue: QueueState): void {
    this.#queue = queue
    this.progress.replace(jobs)
    this.#show()
  }

  apply(event: AppEvent): void {
    if (event.type === 'queue:changed') this.#queue = event.queue
    if (event.type === 'batch:finished') this.#finished(event)
    if (event.type !== 'jobs:changed' && event.type !== 'jobs:gone') return
    this.progress.apply(event)
    this.#show()
  }

  /** The person is here after all. */
  stayAwake(): void {
    clearTimeout(this.#sleeping)
    this.#sleeping = undefined
  }

  #show(): void {
    const { share } = this.progress
    if (share !== this.#shown) for (const window of BrowserWindow.getAllWindows()) window.setProgressBar(share ?? -1)
    this.#shown = share
    const isRunning = share !== undefined
    if (isRunning && this.#blocker === undefined) this.#blocker = powerSaveBlocker.start('prevent-app-suspension')
    if (!isRunning && this.#blocker !== undefined) {
      powerSaveBlocker.stop(this.#blocker)
      this.#blocker = undefined
    }
    if (isRunning) this.stayAwake()
    else if (this.#shouldSleep && !this.progress.hasWork) this.#sleepSoon()
  }

  #finished({ done, failed, cancelled }: Extract<AppEvent, { type: 'batch:finished' }>): void {
    const whenDone = this.#queue?.whenDone ?? 'notify'
    this.#shouldSleep = whenDone === 'sleep' && done > 0
    // Whoever looks at the window sees it there, and what they stopped themselves is no news.
    const isLookedAt = BrowserWindow.getAllWindows().some((window) => window.isFocused() && !window.isMinimized())
    if (whenDone === 'nothing' || isLookedAt || done + failed === 0 || cancelled === done + failed + cancelled) return
    if (!Notification.isSupported()) return
    const notification = new Notification({ ...batchMessage(done, failed), silent: true })
    notification.on('click', focusWindow)
    notification.show()
  }

  #sleepSoon(): void {
    this.#shouldSleep = false
    if (!sleepAbility().isThere) return
    this.#emit({ type: 'app:sleeping', at: Date.now() + sleepGraceMs })
    this.stayAwake()
    this.#sleeping = setTimeout(() => {
      this.#sleeping = undefined
      // Somebody is at the computer, whatever they said before.
      if (powerMonitor.getSystemIdleTime() * 1000 < sleepGraceMs) return
      sleepNow().catch((error: unknown) => this.#log.warn('the computer could not be put to sleep', error))
    }, sleepGraceMs)
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

/** Brings the window to the front; opens none. */
export function focusWindow(): void {
  const [window] = BrowserWindow.getAllWindows()
  if (!window) return
  if (window.isMinimized()) window.restore()
  window.show()
  window.focus()
  if (process.platform === 'darwin') app.focus({ steal: true })
}
