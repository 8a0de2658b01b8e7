import { app, BrowserWindow, powerMonitor } from 'electron'
import type { AppEvent } from '../../preload/contract.ts'
import type { BatchProgress } from '../app/batch-progress.ts'
import type { Services } from '../app/services.ts'

/** When the system shuts down and nobody answers, the queue is left as it is this much later. */
const shutdownGraceMs = 10_000

/**
 * Leaving. With a picture under way the window asks first: finish it, or go on with it at the next start. Then the queue
 * is written and the engine ended before the application goes.
 */
export class Leave {
  readonly #services: Pick<Services, 'close' | 'log' | 'jobs'>
  readonly #progress: BatchProgress
  readonly #emit: (event: AppEvent) => void
  #state: 'staying' | 'asking' | 'after-current' | 'closing' | 'closed' = 'staying'
  #timer: NodeJS.Timeout | undefined

  constructor(
    services: Pick<Services, 'close' | 'log' | 'jobs'>,
    progress: BatchProgress,
    emit: (event: AppEvent) => void,
  ) {
    this.#services = services
    this.#progress = progress
    this.#emit = emit
    app.on('before-quit', (event) => {
      if (this.#state === 'closed') return
      event.preventDefault()
      this.#wanted()
    })
    app.on('window-all-closed', () => {
      if (process.platform !== 'darwin') app.quit()
    })
    const shutdown = (event?: { preventDefault?: () => void }) => {
      event?.preventDefault?.() // it waits for us
      this.#wanted(shutdownGraceMs)
    }
    powerMonitor.on('shutdown', shutdown as never)
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => this.answer('now'))
  }

  /** A window that closes while a picture is made: the application asks while there is one to ask in. */
  guard(window: BrowserWindow): void {
    window.on('close', (event) => {
      const isLast = BrowserWindow.getAllWindows().length === 1
      if (process.platform === 'darwin' || !isLast || this.#state === 'closed') return
      event.preventDefault()
      app.quit()
    })
    // Windows goes down and waits for nobody.
    window.on('session-end', () => this.answer('now'))
  }

  /** What the person said. */
  answer(when: 'after-current' | 'now' | 'stay'): void {
    if (this.#state === 'closing' || this.#state === 'closed') return
    clearTimeout(this.#timer)
    const wasLeaving = this.#state === 'after-current'
    this.#state = when === 'after-current' ? 'after-current' : 'staying'
    if (when === 'now') void this.#close()
    else if (when === 'after-current' && !wasLeaving) void this.#closeAfterCurrent()
    else if (when === 'stay' && wasLeaving) void this.#services.jobs.resume()
  }

  #wanted(graceMs?: number): void {
    // Asked for twice: the person means it.
    if (this.#state === 'asking' && graceMs === undefined) return this.answer('now')
    const [window] = BrowserWindow.getAllWindows()
    if (!window || !this.#progress.isRunning) return this.answer('now')
    if (this.#state === 'closing') return
    if (this.#state !== 'after-current') this.#state = 'asking'
    clearTimeout(this.#timer)
    if (graceMs !== undefined) this.#timer = setTimeout(() => this.answer('now'), graceMs)
    if (window.isMinimized()) window.restore()
    window.show()
    this.#emit({ type: 'app:quitting', ...(graceMs === undefined ? {} : { at: Date.now() + graceMs }) })
  }

  async #closeAfterCurrent(): Promise<void> {
    await this.#services.jobs.finishCurrent()
    if (this.#state === 'after-current') await this.#close()
  }

  async #close(): Promise<void> {
    this.#state = 'closing'
    try {
      await this.#services.close()
    } catch (error) {
      this.#services.log.error('closing', error)
    }
    this.#state = 'closed'
    app.quit()
  }
}
