import { build, Platform } from 'electron-builder'
import { cp, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import sharp from 'sharp'
import config from '../electron-builder.config.ts'
import { buildDeb } from './package-deb.ts'
import { resolveElectron, type ElectronRuntime } from './electron-runtime.ts'

// `npm run package`: the application as people install it. With a network that leads to Electron's and the packagers'
// download sites, every format of electron-builder.config.mjs can be built; without, on Linux, the folder and the deb.

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const dist = join(root, 'dist')
const say = (text: string) => void process.stdout.write(`${text}\n`)

const { values } = parseArgs({
  options: {
    all: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  say(`Packages Vignette into dist/.

  npm run package            the application's folder, and on Linux a deb
  npm run package -- --all   every format for this system (fetches the packagers' tools)`)
  process.exit(0)
}

const runtime = await resolveElectron()
say(`Packaging Vignette ${await version()} with Electron ${runtime.version} …`)
await mkdir(join(dist, 'resources'), { recursive: true })
await writeIcon(join(dist, 'resources', 'icon.png'))
const electronDist = await distribution(runtime)

await build({
  projectDir: root,
  targets: Platform.current().createTarget(values.all ? undefined : 'dir'),
  config: { ...config, electronVersion: runtime.version, electronDist },
})
if (electronDist.startsWith(dist)) await rm(electronDist, { recursive: true, force: true })

if (process.platform === 'linux') {
  const folder = join(dist, 'linux-unpacked')
  say(`The application: ${join(folder, 'vignette')}`)
  if (!values.all) {
    const file = await buildDeb(folder, dist, config, await version(), join(dist, 'resources', 'icon.png'))
    say(`The package: ${file} (${Math.round((await stat(file)).size / 1e6)} MB)`)
  }
} else say(`The application lies in ${dist}`)

async function version(): Promise<string> {
  return (JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { version: string }).version
}

/** The Electron to pack. One taken from another package holds a small application of ours, which must not come along. */
async function distribution({ path, isFallback }: ElectronRuntime): Promise<string> {
  const folder = dirname(path)
  if (!isFallback) return folder
  const copy = join(dist, 'electron')
  await rm(copy, { recursive: true, force: true })
  const foreign = ['app', 'app-update.yml'].map((name) => join(folder, 'resources', name))
  await cp(folder, copy, { recursive: true, filter: (source) => !foreign.includes(source) })
  return copy
}

/** The mark on a rounded ground, as `Mark.svelte` draws it in the window. */
async function writeIcon(file: string): Promise<void> {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="1024" height="1024" viewBox="0 0 64 64">
    <rect x="3" y="3" width="58" height="58" rx="14" fill="#fbfaf7"/>
    <g transform="translate(10.6 5.7) scale(1.645)">
      <clipPath id="oval"><ellipse cx="13" cy="16" rx="10.5" ry="13.5"/></clipPath>
      <ellipse cx="13" cy="16" rx="12" ry="15" fill="none" stroke="#a5422a" stroke-width="1.3"/>
      <g clip-path="url(#oval)">
        <rect width="26" height="32" fill="#f3ddd5"/>
        <circle cx="17" cy="10.5" r="3" fill="#a5422a"/>
        <path d="M0 26 L9 15 L14.5 21.5 L18 17.5 L26 26 V32 H0 Z" fill="#a5422a"/>
      </g>
    </g>
  </svg>`
  await writeFile(file, await sharp(Buffer.from(svg)).png().toBuffer())
}
