import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { Ability } from '../../preload/contract/app.ts'

/** How each system is told to sleep. */
function command(platform: NodeJS.Platform): string[] | undefined {
  if (platform === 'darwin') return ['pmset', 'sleepnow']
  if (platform === 'win32') return ['rundll32.exe', 'powrprof.dll,SetSuspendState', '0,1,0']
  if (platform === 'linux') return ['systemctl', 'suspend']
  return undefined
}

/** Whether the computer can be put to sleep from here. */
export function sleepAbility(platform = process.platform, path = process.env.PATH ?? ''): Ability {
  const [name] = command(platform) ?? []
  const isFound = name !== undefined && path.split(delimiter).some((folder) => existsSync(join(folder, name)))
  // Where systemd does not run, its command is there and does nothing.
  const isRunning = platform !== 'linux' || existsSync('/run/systemd/system')
  return isFound && isRunning
    ? { isThere: true }
    : { isThere: false, reason: 'This system offers no way for a program to put it to sleep.' }
}

/** Puts the computer to sleep. Resolves when the system has taken the request. */
export function sleepNow(platform = process.platform): Promise<void> {
  const [name, ...args] = command(platform) ?? []
  if (name === undefined) return Promise.reject(new Error(`no way to sleep on ${platform}`))
  return new Promise((resolve, reject) => {
    const child = spawn(name, args, { stdio: 'ignore', windowsHide: true })
    child.once('error', reject)
    child.once('exit', (code) => (code === 0 ? resolve() : reject(new Error(`${name} ended with code ${code}`))))
  })
}
