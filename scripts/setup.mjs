// Everything a fresh machine needs before a command of package.json can run. Plain Node, no packages: it installs them.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const say = (text) => process.stderr.write(`vignette: ${text}\n`)

/** Runs a program in the repository with its output on stderr, so that `--json` on stdout stays clean. */
function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: ['ignore', process.stderr, process.stderr], ...options })
  if (result.error) throw result.error
  return result.status ?? 1
}

export function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > 20 || (major === 20 && minor >= 20)) return
  say(`Node ${process.versions.node} is too old; Vignette needs 20.20 or later. Get it from nodejs.org.`)
  process.exit(1)
}

/** Installs the npm packages when they are absent or the lock file has changed since. */
export function ensurePackages() {
  // A link leads to packages that somebody else keeps: installing through it would take theirs away.
  if (lstatSync(join(root, 'node_modules'), { throwIfNoEntry: false })?.isSymbolicLink()) return
  const stamp = join(root, 'node_modules', '.vignette-lock')
  const hash = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .digest('hex')
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === hash) return
  say('installing packages (once; about a minute) …')
  const npm = process.platform === 'win32' ? 'npm.cmd' : 'npm'
  // Install scripts stay off: the only thing they would fetch is binaries that this project does not need.
  const status = run(npm, ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'], {
    shell: process.platform === 'win32',
  })
  if (status !== 0) {
    say('the packages could not be installed. Is the npm registry reachable?')
    process.exit(1)
  }
  writeFileSync(stamp, hash)
}

/** Libraries Electron links to, and what a window needs where there is no screen. Debian's names. */
const windowPackages = {
  libgtk: ['libgtk-3-0', '/usr/lib/x86_64-linux-gnu/libgtk-3.so.0'],
  libnss: ['libnss3', '/usr/lib/x86_64-linux-gnu/libnss3.so'],
  libasound: ['libasound2', '/usr/lib/x86_64-linux-gnu/libasound.so.2'],
  libgbm: ['libgbm1', '/usr/lib/x86_64-linux-gnu/libgbm.so.1'],
  libxss: ['libxss1', '/usr/lib/x86_64-linux-gnu/libXss.so.1'],
  libxtst: ['libxtst6', '/usr/lib/x86_64-linux-gnu/libXtst.so.6'],
}
const screenPackages = { xvfb: ['xvfb', '/usr/bin/Xvfb'], xauth: ['xauth', '/usr/bin/xauth'] }
/** Chromium for the browser tests; its package also carries the software Vulkan that the GPU tests run on. */
const testPackages = {
  chromium: ['chromium', '/usr/bin/chromium'],
  vulkan: ['libvulkan1', '/usr/lib/x86_64-linux-gnu/libvulkan.so.1'],
}

/** On Debian as root, installs what is missing; elsewhere says what to install. `purpose`: 'window' or 'tests'. */
export function ensureSystemPackages(purpose) {
  if (process.platform !== 'linux' || process.arch !== 'x64') return
  const noScreen = !process.env.DISPLAY && !process.env.WAYLAND_DISPLAY
  const wanted = {
    ...windowPackages,
    ...(noScreen || purpose === 'tests' ? screenPackages : {}),
    ...(purpose === 'tests' ? testPackages : {}),
  }
  const missing = Object.values(wanted)
    .filter(([, file]) => !existsSync(file))
    .map(([name]) => name)
  if (missing.length === 0) return
  const isDebian = existsSync('/usr/bin/apt-get')
  if (!isDebian || process.getuid?.() !== 0) {
    say(`these system libraries seem to be missing: ${missing.join(' ')}`)
    if (isDebian) say(`if the next step fails, run: sudo apt-get install -y ${missing.join(' ')}`)
    return
  }
  say(`installing system packages: ${missing.join(' ')} …`)
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
  run('apt-get', ['update', '-qq'], { env })
  const status = run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], { env })
  if (status !== 0) say('some system packages could not be installed; going on without them.')
}

/** Newest modification below the source folders: what the built application depends on. */
function newestSource() {
  let newest = 0
  const visit = (path) => {
    const stat = statSync(path)
    if (stat.isDirectory()) {
      for (const name of readdirSync(path)) if (name !== 'node_modules' && name !== 'train') visit(join(path, name))
    } else newest = Math.max(newest, stat.mtimeMs)
  }
  for (const name of [
    'main',
    'models',
    'kernels',
    'preload',
    'renderer',
    'electron.vite.config.ts',
    'package-lock.json',
  ]) {
    if (existsSync(join(root, name))) visit(join(root, name))
  }
  return newest
}

/** Builds main, engine, preload and renderer into out/ when a source is newer than the last build. */
export function ensureBuild() {
  const stamp = join(root, 'out', '.built')
  if (existsSync(stamp) && statSync(stamp).mtimeMs >= newestSource()) return
  say('building the application …')
  const status = run(process.execPath, [
    join(root, 'node_modules/electron-vite/bin/electron-vite.js'),
    'build',
    '--logLevel',
    'warn',
  ])
  if (status !== 0) process.exit(status)
  mkdirSync(dirname(stamp), { recursive: true })
  writeFileSync(stamp, '')
}
