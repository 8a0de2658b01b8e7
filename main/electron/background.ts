import { app, BrowserWindow, Notification, powerMonitor, powerSaveBlocker } from 'electron'
import type { AppEvent } from '../../preload/contract.ts'
import type { Job } from '../../preload/contract/jobs.ts'
import { settingDefaults } from '../../preload/defaults.ts'
import { batchMessage, BatchProgress } from '../app/batch-progress.ts'
import type { Services } from '../app/services.ts'
import { sleepAbility, sleepNow } from '../app/sleep.ts'

/** The person can still say no. */
const sleepGraceMs = 30_000

/** What the system sees of the queue: the bar on the icon, a message when a batch is over, the computer kept awake. */
export class Background {
  readonly progress = new BatchProgress()
  readonly #emit: (event: AppEvent) => void
  readonly #services: Pick<Services, 'settings' | 'log'>
  #blocker: number | undefined
  #shown: number | undefined
  #sleeping: NodeJS.Timeout | undefined

  constructor(services: Pick<Services, 'settings' | 'log'>, emit: (event: AppEvent) => void) {
    this.#services = services
    this.#emit = emit
  }

  start(jobs: readonly Job[]): void {
    this.progress.replace(jobs)
    this.#show()
  }

  apply(event: AppEvent): void {
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
  }

  #finished({ done, failed, cancelled }: Extract<AppEvent, { type: 'batch:finished' }>): void {
    const whenDone = this.#services.settings.get().whenDone ?? settingDefaults.whenDone
    // Whoever looks at the window sees it there, and what they stopped themselves is no news.
    const isLookedAt = BrowserWindow.getAllWindows().some((window) => window.isFocused() && !window.isMinimized())
    if (whenDone === 'nothing' || isLookedAt || done + failed === 0 || cancelled === done + failed + cancelled) return
    if (!Notification.isSupported()) return
    const notification = new Notification({ ...batchMessage(done, failed), silent: true })
    notification.on('click', focusWindow)
    notification.show()
  }

  /** All that waited is made. */
  idle(): void {
    if (this.#services.settings.get().whenDone !== 'sleep' || !sleepAbility().isThere) return
    this.#emit({ type: 'app:sleeping', at: Date.now() + sleepGraceMs })
    this.stayAwake()
    this.#sleeping = setTimeout(() => {
      this.#sleeping = undefined
      // Somebody is at the computer, whatever they said before.
      if (powerMonitor.getSystemIdleTime() * 1000 < sleepGraceMs) return
      sleepNow().catch((error: unknown) => this.#services.log.warn('the computer could not be put to sleep', error))
    }, sleepGraceMs)
  }
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
