import { BrowserWindow, powerMonitor } from 'electron'
import type { Ability } from '../../preload/contract/app.ts'
import type { Services } from '../app/services.ts'

const lowShare = 0.2
const askEveryMs = 60_000

type Battery = { level: number; isCharging: boolean }

/** Pauses the queue while the computer runs on less than a fifth of its battery, and lets it go on at the mains. */
export class BatteryWatch {
  readonly #services: Pick<Services, 'jobs' | 'settings' | 'log'>
  #battery: Battery | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(services: Pick<Services, 'jobs' | 'settings' | 'log'>) {
    this.#services = services
  }

  start(): void {
    powerMonitor.on('on-battery', () => void this.#look())
    powerMonitor.on('on-ac', () => void this.#look())
    this.#services.settings.onChange((_, keys) => {
      if (keys.includes('pauseOnBattery')) void this.#look()
    })
    void this.#look()
  }

  ability(): Ability {
    return this.#battery ? { isThere: true } : { isThere: false, reason: 'This computer has no battery.' }
  }

  async #look(): Promise<void> {
    clearTimeout(this.#timer)
    this.#battery = await askBattery()
    const { settings, jobs, log } = this.#services
    const isLow = this.#battery !== undefined && !this.#battery.isCharging && this.#battery.level < lowShare
    const shouldPause = isLow && (settings.get().pauseOnBattery ?? true)
    const { isPaused, pausedBy } = jobs.state()
    if (shouldPause && !isPaused) {
      log.info(`the queue pauses: the battery is at ${Math.round(100 * this.#battery!.level)} %`)
      await jobs.pauseBecause('battery')
    } else if (!shouldPause && pausedBy === 'battery') {
      log.info('the queue goes on: the battery is charged again')
      await jobs.resume('battery')
    }
    // Only while it is being used up does anything change by itself.
    if (this.#battery && !this.#battery.isCharging) this.#timer = setTimeout(() => void this.#look(), askEveryMs)
  }
}

/** Electron tells whether there is a battery in use, its page how full it is. */
async function askBattery(): Promise<Battery | undefined> {
  const [window] = BrowserWindow.getAllWindows()
  if (!window || window.webContents.isLoading()) return undefined
  const code = `navigator.getBattery?.().then(({ level, charging, chargingTime, dischargingTime }) => [level, charging, chargingTime === 0 && dischargingTime === Infinity && level === 1])`
  try {
    const found = (await window.webContents.executeJavaScript(code)) as [number, boolean, boolean] | undefined
    // A computer without one says: full, charging, and for ever.
    if (!found || (found[2] && !powerMonitor.isOnBatteryPower())) return undefined
    return { level: found[0], isCharging: found[1] }
  } catch {
    return undefined
  }
}
