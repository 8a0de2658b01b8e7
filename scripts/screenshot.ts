import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { _electron } from 'playwright-core'
import sharp from 'sharp'
import { resolveElectron, rootArguments, runtimeEnv } from './electron-runtime.ts'
import { openScreen } from './virtual-screen.ts'

// Takes the pictures of the README: the real window, after it has made real pictures.
//   npx tsx scripts/screenshot.ts [--out docs] [--home FOLDER] [--seed 7]
// Needs a build (`npm run build`) and a model: the starter, or one in --home.

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const limitBytes = 300_000
const prompts = [
  'a penguin in the snow at sunset, storybook style',
  'a cat in a purple dress holding a red balloon at the beach, storybook style',
  'a bear reading a blue book in a cozy room, storybook style',
  'a frog wearing glasses in a meadow on a sunny day, storybook style',
  'a fox wearing a red scarf in a snowy forest at night, storybook style',
]

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: join(root, 'docs') },
    home: { type: 'string' },
    seed: { type: 'string', default: '7' },
  },
})

const home = values.home ?? (await mkdtemp(join(tmpdir(), 'vignette-screenshot-')))
const screen = await openScreen()
const runtime = await resolveElectron()
const env = { ...process.env, ...runtimeEnv(runtime), ...screen.env, VIGNETTE_HOME: home } as Record<string, string>
const app = await _electron.launch({ executablePath: runtime.path, args: [root, ...rootArguments()], env })
try {
  const page = await app.firstWindow()
  await page.emulateMedia({ colorScheme: 'light' })
  await page.getByTestId('screen-studio').waitFor()
  for (const prompt of prompts) {
    await page.getByTestId('prompt').fill(prompt)
    await page.getByTestId('seed').fill(values.seed)
    await page.keyboard.press('Tab')
    await page.getByTestId('generate').click()
  }
  // All five, or the first failure: a picture of an error card helps nobody.
  await page.waitForFunction(
    (count) =>
      document.querySelectorAll('[data-testid="thumb"]').length >= count ||
      document.querySelector('[data-testid="error-card"], [data-testid="notice"]'),
    prompts.length,
    { timeout: 30 * 60_000 },
  )
  const failure = page.locator('[data-testid="error-card"], [data-testid="notice"]')
  if ((await failure.count()) > 0) throw new Error(await failure.first().innerText())
  await page.getByTestId('picture').waitFor()
  await shoot('screenshot.png')
  await page.getByTestId('rail-gallery').click()
  await page.getByTestId('screen-gallery').waitFor()
  await shoot('gallery.png')
  await page.getByTestId('rail-adapters').click()
  await page.getByTestId('screen-adapters').waitFor()
  await page.emulateMedia({ colorScheme: 'dark' })
  await shoot('adapters.png')

  async function shoot(name: string): Promise<void> {
    await page.mouse.move(0, 0)
    await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur())
    await page.waitForTimeout(1500) // fades, and pictures that load when they are seen
    const file = join(values.out, name)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, await smallPng(await page.screenshot()))
    console.log(`${file}, ${Math.round((await readFile(file)).length / 1000)} kB`)
  }
} finally {
  await app.close()
  screen.close()
  if (values.home === undefined) await rm(home, { recursive: true, force: true })
}

/** Lossless where it fits, else with a palette, which such pictures take well. */
async function smallPng(png: Buffer): Promise<Buffer> {
  const plain = await sharp(png).png({ compressionLevel: 9 }).toBuffer()
  if (plain.length <= limitBytes) return plain
  for (const colours of [256, 192, 128, 96]) {
    const reduced = await sharp(png).png({ palette: true, colours, effort: 10, dither: 0.6 }).toBuffer()
    if (reduced.length <= limitBytes) return reduced
  }
  throw new Error('the screenshot is too large')
}
