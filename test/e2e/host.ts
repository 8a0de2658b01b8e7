import { existsSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { extname, join } from 'node:path'
import { chromium, type Browser, type Page } from 'playwright-core'
import { answer } from '../../main/app/answer.ts'
import type { ModelWorker } from '../../main/app/model-work.ts'
import { createServices, type Services } from '../../main/app/services.ts'
import { contentSecurityPolicy } from '../../main/electron/security.ts'
import { EngineClient, forkChild, forkEngine } from '../../main/engine/client.ts'
import { forkPictures } from '../../main/engine/picture-client.ts'
import type { AppEvent, RequestName } from '../../preload/contract.ts'
import type { MenuCommand } from '../../preload/contract/app.ts'
import { root } from './tiny-model.ts'

export type Host = {
  page: Page
  services: Services
  engine: EngineClient
  /** What the browser complained about: errors, refused content. */
  complaints: string[]
  /** Files shown in the file manager. */
  revealed: string[]
  /** Web pages shown in the person's browser, and what was said about leaving. */
  links: string[]
  quits: string[]
  /** The native menu. */
  menu: () => MenuCommand[]
  /** Tells the page what main tells it unasked. */
  tell: (event: AppEvent) => void
  /** What the system's panel for choosing files answers next. */
  chosen: string[]
  /** Processes that worked on models, in the order they were started. */
  modelWorkers: { readonly pid?: number }[]
  close: () => Promise<void>
}

const types: Record<string, string> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.woff2': 'font/woff2',
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.webp': 'image/webp',
}

/**
 * The built window in the system's Chromium, the real handlers in this process, the real engine as a child: everything
 * but Electron itself. `window.vignette` is a bridge whose `invoke` is `answer()`.
 */
export async function openHost(browser: Browser, home: string): Promise<Host> {
  const revealed: string[] = []
  const complaints: string[] = []
  const chosen: string[] = []
  const modelWorkers: Host['modelWorkers'] = []
  const links: string[] = []
  const quits: string[] = []
  let menu: MenuCommand[] = []
  let send: (event: AppEvent) => void = () => {}
  const engine = new EngineClient(() => forkEngine(join(root, 'out/main/engine.cjs'), { execArgv: [] }), {
    device: 'cpu',
    threads: 1,
  })
  const services = await createServices({
    version: 'test',
    engine,
    home,
    modelsFolder: join(home, 'models'),
    install: () => Promise.resolve(), // the tiny model is all these tests need
    modelWorker() {
      const worker: ModelWorker = forkChild(join(root, 'out/main/model-worker.cjs'), { execArgv: [] })
      modelWorkers.push(worker)
      return worker
    },
    promptWorker: join(root, 'out/main/prompt-worker.cjs'),
    pictureWorker: () => forkPictures(join(root, 'out/main/picture-worker.cjs'), { execArgv: [] }),
    adapterWorker: join(root, 'out/main/adapter-worker.cjs'),
    reveal: (file) => void revealed.push(file),
    desktop: {
      openLink: (url) => void links.push(url),
      quit: (when) => void quits.push(when),
      setMenu: (commands) => (menu = commands),
    },
    dialogs: { choose: async () => [...chosen], saveAs: async (name) => join(home, name) },
    starterAdapters: join(home, 'starter-adapters'),
    emit: (event) => send(event),
  })
  const server = await serve(services)
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  // Pictures have an address of their own in Electron; here they come from the same server as the page.
  const here = <T>(value: T) =>
    JSON.parse(JSON.stringify(value ?? null).replaceAll('vignette-image://', `${origin}/image/`)) as T

  const page = await browser.newPage({ viewport: { width: 1360, height: 860 } })
  page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()))
  page.on('pageerror', (error) => complaints.push(String(error)))
  await page.exposeFunction('vignetteInvoke', async (name: RequestName, input: unknown) =>
    here(await answer(services.handlers, name, input, (_, error) => complaints.push(String(error)))),
  )
  await page.addInitScript(() => {
    const listeners = new Set<(event: unknown) => void>()
    const page = window as unknown as Record<string, unknown>
    page.vignetteEvent = (event: unknown) => listeners.forEach((listener) => listener(event))
    page.vignette = {
      invoke: async (name: string, input: unknown) =>
        (page.vignetteInvoke as (name: string, input: unknown) => unknown)(name, input),
      onEvent: (listener: (event: unknown) => void) => (listeners.add(listener), () => listeners.delete(listener)),
      // Where a file lies on disk the test says, by its name.
      pathOf: (file: File) => (page.vignettePaths as Record<string, string> | undefined)?.[file.name] ?? '',
    }
  })
  send = (event) => {
    // A page that is just being reloaded hears nothing, as in Electron; it asks for the state when it is back.
    page
      .evaluate(
        (one) => (window as unknown as { vignetteEvent?: (event: unknown) => void }).vignetteEvent?.(one),
        here(event),
      )
      .catch(() => {})
  }
  await page.goto(origin)
  await page.locator('[data-testid^="screen-"]').first().waitFor() // the one that was left
  return {
    page,
    services,
    engine,
    complaints,
    revealed,
    links,
    quits,
    menu: () => menu,
    tell: (event) => send(event),
    chosen,
    modelWorkers,
    async close() {
      send = () => {}
      await page.close()
      server.close()
      await services.close()
    },
  }
}

export async function openBrowser(): Promise<Browser> {
  const executablePath = [
    '/usr/bin/chromium',
    '/usr/bin/chromium-browser',
    '/usr/bin/google-chrome',
    process.env.CHROMIUM_PATH ?? '',
  ].find((path) => existsSync(path))
  if (executablePath === undefined)
    throw new Error('There is no Chromium on this computer. Install one, or set CHROMIUM_PATH.')
  // Chromium refuses its sandbox as root, which is what containers run as.
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [] })
}

async function serve(services: Services): Promise<Server> {
  const server = createServer((request, response) => {
    const path = new URL(request.url ?? '/', 'http://host').pathname
    void fileOf(path, services).then((file) =>
      readFile(file ?? '').then(
        (body) => {
          const policy = contentSecurityPolicy('')
          response.writeHead(200, {
            'content-type': types[extname(file!)] ?? 'text/plain',
            'content-security-policy': policy,
          })
          response.end(body)
        },
        () => response.writeHead(path === '/favicon.ico' ? 204 : 404).end(),
      ),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

async function fileOf(path: string, { pictures }: Services): Promise<string | undefined> {
  const [, id, isThumb] = /^\/image\/([^/]+)(\/thumb)?$/.exec(path) ?? []
  if (id === undefined) return join(root, 'out/renderer', path === '/' ? 'index.html' : path)
  return isThumb ? pictures.thumbOf(id) : pictures.fileOf(id)
}
