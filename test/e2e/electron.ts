import { _electron, type ElectronApplication, type Page } from 'playwright-core'
import { resolveElectron, rootArguments, runtimeEnv, type ElectronRuntime } from '../../scripts/electron-runtime.ts'
import { openScreen } from '../../scripts/virtual-screen.ts'
import { root } from './tiny-model.ts'

/** An Electron and a screen for it. On Linux a missing one is a failure of the test, not a reason to skip it. */
export type Desk = { runtime: ElectronRuntime; screen: Awaited<ReturnType<typeof openScreen>> }

export type OpenApp = {
  app: ElectronApplication
  page: Page
  /** What the page's console called an error, refused content among it. */
  complaints: string[]
}

export async function openDesk(): Promise<Desk> {
  return { runtime: await resolveElectron(), screen: await openScreen() }
}

/** The environment the built application is started with, as `npm start` does it. */
export function appEnv({ runtime, screen }: Desk, home: string): Record<string, string> {
  return { ...process.env, ...runtimeEnv(runtime), ...screen.env, VIGNETTE_HOME: home } as Record<string, string>
}

/** Starts the built application and waits for its first screen. */
export async function openApp(
  desk: Desk,
  home: string,
  extraEnv: Record<string, string> = {},
  files: readonly string[] = [],
): Promise<OpenApp> {
  const env = { ...appEnv(desk, home), ...extraEnv }
  const args = [root, ...rootArguments(), ...files]
  const app = await _electron.launch({ executablePath: desk.runtime.path, args, env })
  const page = await app.firstWindow()
  const complaints: string[] = []
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(String(error)))
  await page.locator('[data-testid^="screen-"]').first().waitFor()
  return { app, page, complaints }
}
