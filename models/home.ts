import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/** Where Vignette keeps what belongs to the person: VIGNETTE_HOME, or the platform's place for application data. */
export function vignetteHome(
  env: NodeJS.ProcessEnv = process.env,
  platform: NodeJS.Platform = process.platform,
): string {
  if (env.VIGNETTE_HOME) return resolve(env.VIGNETTE_HOME)
  const home = homedir()
  if (platform === 'darwin') return join(home, 'Library', 'Application Support', 'Vignette')
  if (platform === 'win32') return join(env.APPDATA || join(home, 'AppData', 'Roaming'), 'Vignette')
  return join(env.XDG_DATA_HOME || join(home, '.local', 'share'), 'vignette')
}

/** The folder with one sub-folder per installed model. */
export function modelHome(env: NodeJS.ProcessEnv = process.env, platform: NodeJS.Platform = process.platform): string {
  return join(vignetteHome(env, platform), 'models')
}
