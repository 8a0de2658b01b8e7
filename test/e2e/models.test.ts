import { existsSync } from 'node:fs'
import { cp, mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { tinyLdmConfigs } from '../../scripts/ldm-layout.ts'
import { writeRandomCheckpoint } from '../../scripts/random-checkpoint.ts'
import { savedPictures } from './pictures.ts'
import { transferOf } from './tiny-adapter.ts'
import { eventually, home, host, openWindow, page, shot, template, useWindow } from './window.ts'

// The Models screen in the built window: what it shows, and models on their way in and out.

let checkpoint: string

useWindow({ opens: false })
beforeAll(async () => {
  checkpoint = join(template.home, 'dreamy-v8.safetensors')
  await writeRandomCheckpoint(checkpoint, tinyLdmConfigs.sd15, { seed: 9, dtype: 'F32' })
})
beforeEach(() => open())
afterEach(() => expect(host.complaints).toEqual([]))

async function open() {
  await openWindow()
  await page.keyboard.press('Control+5')
  await page.getByTestId('screen-models').waitFor()
}
async function reopen() {
  await host.close()
  await open()
}
const onDisk = async () => (await readdir(join(home.home, 'models'))).sort()
const row = (id: string) => page.getByTestId(`model-${id}`)
const task = () => page.getByTestId('model-task')

/** Offers files through the system's panel. */
async function offer(...files: string[]) {
  host.chosen.splice(0, host.chosen.length, ...files)
  await page.getByTestId('models-add-file').click()
  await page.getByTestId('model-offers').waitFor()
}

async function importDreamy(name = 'Dreamy 8') {
  await offer(checkpoint)
  await page.getByTestId('model-name').fill(name)
  await page.getByTestId('model-import').click()
}

/** Waits until the import has begun to write, then holds its process where it is. */
async function holdImport(id: string): Promise<() => void> {
  for (let i = 0; !existsSync(join(home.home, 'models', `.${id}.partial`)); i++) {
    if (i > 5000) throw new Error('the import did not begin')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
  const { pid } = host.modelWorkers.at(-1)!
  process.kill(pid!, 'SIGSTOP')
  return () => process.kill(pid!, 'SIGCONT')
}

describe('the list', () => {
  it('says what a model is, whether it fits this computer, and what it can do', async () => {
    const detail = page.getByTestId('model-detail')
    await expect.poll(() => page.locator('h1').count()).toBe(1)
    for (const words of ['Stable Diffusion 1.x', '16-bit', '128 × 128', 'not stated', 'tiny.safetensors']) {
      await eventually(() => detail.innerText()).toContain(words)
    }
    await eventually(() => page.getByTestId('model-state').innerText()).toBe('Ready')
    expect(await page.getByTestId('model-memory').innerText()).toMatch(/Fits\s*needs about .* available/)
    await eventually(() => page.getByTestId('model-capabilities').innerText()).toContain('Up to 8 adapters at a time')
    await shot('models')
    await page.emulateMedia({ colorScheme: 'dark' })
    await shot('models-dark')
    await page.emulateMedia({ colorScheme: 'light' })
  })

  it('shows a part that is missing, and weights that were cut off, with what was expected', async () => {
    const vae = join(home.home, 'models', 'tiny', 'vae.safetensors')
    const bytes = await readFile(vae)
    await rm(vae)
    await reopen()
    expect(await row('tiny').getAttribute('data-state')).toBe('missing-part')
    expect(await page.getByTestId('model-problem').innerText()).toContain(vae)
    expect(await page.getByTestId('model-test').isDisabled()).toBe(true)
    await shot('models-missing')
    await writeFile(vae, bytes.subarray(0, bytes.length - 1))
    await reopen()
    expect(await row('tiny').getAttribute('data-state')).toBe('damaged')
    expect(await page.getByTestId('model-problem').innerText()).toMatch(/cut off/)
  })

  it('notices a changed byte when it verifies', async () => {
    await page.getByTestId('model-verify').click()
    await eventually(() => page.getByTestId('model-check').innerText()).toContain('hash recorded')
    await page.getByTestId('model-verify').click()
    await eventually(() => page.getByTestId('model-check').innerText()).toContain('verified')
    const vae = join(home.home, 'models', 'tiny', 'vae.safetensors')
    const bytes = await readFile(vae)
    bytes[bytes.length - 5] ^= 1
    await writeFile(vae, bytes)
    await page.getByTestId('model-verify').click()
    await eventually(() => page.getByTestId('model-state').innerText()).toBe('Damaged')
    expect(await page.getByTestId('model-check').innerText()).toContain('changed')
  })

  it('AC59 keeps imports by address off, with the reason, while Vignette is offline', async () => {
    const button = page.getByTestId('models-add-address')
    expect(await button.isDisabled()).toBe(true)
    const reason = await button.getAttribute('aria-describedby')
    expect(await page.locator(`#${reason}`).innerText()).toContain('offline')
  })
})

describe('an import', () => {
  it('shows its verdict before anything is copied, and becomes a model that draws', async () => {
    await offer(checkpoint)
    await eventually(() => page.getByTestId('model-verdict').innerText()).toBe('Works here')
    expect(await page.getByTestId('model-offer').innerText()).toContain('Stable Diffusion 1.x')
    expect(await onDisk()).toEqual(['tiny'])
    await shot('model-offer')
    await page.emulateMedia({ colorScheme: 'dark' })
    await shot('model-offer-dark')
    await page.emulateMedia({ colorScheme: 'light' })
    await page.getByTestId('model-name').fill('Dreamy 8')
    await page.getByTestId('model-import').click()
    await eventually(() => task().getAttribute('data-status')).toBe('done')
    expect(await onDisk()).toEqual(['dreamy-8', 'tiny'])
    await eventually(() => page.getByTestId('model-detail').locator('h2').innerText()).toBe('Dreamy 8')
    await page.getByTestId('model-default-width').fill('64')
    await page.getByTestId('model-default-height').fill('64')
    await page.keyboard.press('Tab')
    await page.getByTestId('model-test').click()
    await eventually(() => page.getByTestId('model-test-result').locator('img').count()).toBe(1)
    const [picture] = await savedPictures(home.home)
    expect(picture.recipe).toMatchObject({ model: { name: 'Dreamy 8' }, request: { steps: 4, width: 64 } })
    await eventually(() => row('dreamy-8').innerText()).toContain('In memory')
    await shot('models-tested')
    await page.getByTestId('model-unload').click()
    await eventually(() => row('dreamy-8').innerText()).not.toContain('In memory')
    await offer(checkpoint)
    expect(await page.getByTestId('model-known').innerText()).toContain('Dreamy 8')
  })

  it('that is cancelled on the way leaves nothing', async () => {
    await importDreamy()
    const goOn = await holdImport('dreamy-8')
    await eventually(() => task().getAttribute('data-status')).toBe('running')
    await shot('models-importing')
    await page.getByTestId('model-task-cancel').click()
    await eventually(() => task().innerText()).toContain('Stopping')
    goOn()
    await eventually(() => task().getAttribute('data-status')).toBe('cancelled')
    expect(await onDisk()).toEqual(['tiny'])
  })

  it('goes on after a restart, and never has a half model under its name', async () => {
    await importDreamy()
    await holdImport('dreamy-8')
    expect(await onDisk()).not.toContain('dreamy-8')
    await reopen()
    expect(await row('dreamy-8').count()).toBe(0)
    await eventually(() => row('dreamy-8').getAttribute('data-state')).toBe('ready')
    await page.getByTestId('model-verify').click()
    await eventually(() => page.getByTestId('model-check').innerText()).toContain('verified')
    expect(await onDisk()).toEqual(['dreamy-8', 'tiny'])
  })

  it('refuses what is no whole model, each with its reason, and takes the good one beside them', async () => {
    const bad = async (name: string, write: (file: string) => Promise<void>) => {
      const file = join(home.home, name)
      await write(file)
      return file
    }
    const files = [
      await bad('cut.safetensors', async (file) => (await cp(checkpoint, file), truncate(file, 200_000))),
      await bad('packed.safetensors', (file) => writeFile(file, 'PK\u0003\u0004 the rest of an archive')),
      await bad('pickle.ckpt', (file) => writeFile(file, Buffer.from([0x80, 2, 0x7d, 0x71, 0, 0x2e]))),
      checkpoint,
    ]
    await offer(...files)
    const card = (name: string) => page.getByTestId('model-offer').filter({ hasText: name })
    await eventually(() => card('dreamy-v8').getAttribute('data-stage')).toBe('asking')
    const codes = { 'cut.safetensors': 'file-unreadable', 'packed.safetensors': 'file-unreadable', 'pickle.ckpt': 'checkpoint-unsafe' } // prettier-ignore
    for (const [name, code] of Object.entries(codes)) {
      expect(await card(name).getByRole('alert').getAttribute('data-code'), name).toBe(code)
      expect(await card(name).locator('p').count(), `${name} has a hint`).toBe(2)
    }
    await shot('model-refused')
    await card('dreamy-v8').getByTestId('model-import').click()
    await eventually(() => row('dreamy-v8').count()).toBe(1)
  })

  it('begins with a drop on its place, from any screen, and a refusal there is said there', async () => {
    await page.keyboard.press('Control+1')
    await page.getByTestId('screen-studio').waitFor()
    const transfer = await transferOf(page, [checkpoint])
    await page.dispatchEvent('body', 'dragover', { dataTransfer: transfer })
    await page.getByTestId('drop-overlay').waitFor()
    await shot('model-drop')
    await page.getByTestId('drop-model').dispatchEvent('drop', { dataTransfer: transfer })
    await page.getByTestId('screen-models').waitFor()
    await eventually(() => page.getByTestId('model-verdict').innerText()).toBe('Works here')
    expect(await page.getByTestId('offers').count()).toBe(0)
    await page.getByTestId('model-offers-done').click()
    expect(await onDisk()).toEqual(['tiny'])
    // Where nothing is said, a weight file is an adapter, whose card says that it is not.
    await page.dispatchEvent('body', 'drop', { dataTransfer: transfer })
    await eventually(() => page.getByTestId('verdict-card').getAttribute('data-fit')).toBe('refused')
    expect(await page.getByTestId('model-offers').count()).toBe(0)
  })

  it('offers the models of linked folders where they lie', async () => {
    const comfy = join(home.home, 'ComfyUI')
    await mkdir(join(comfy, 'models', 'checkpoints'), { recursive: true })
    await mkdir(join(comfy, 'models', 'loras'))
    await cp(checkpoint, join(comfy, 'models', 'checkpoints', 'from-comfy.safetensors'))
    await page.evaluate(
      (folder) =>
        (window as unknown as { vignette: { invoke: Function } }).vignette.invoke('adapters:link', { folder }), // eslint-disable-line @typescript-eslint/no-unsafe-function-type
      comfy,
    )
    await reopen()
    const found = page.getByTestId('model-found')
    await eventually(() => found.innerText()).toContain('from-comfy.safetensors')
    await shot('models-found')
    await found.getByRole('button').click()
    await page.getByTestId('model-import').click()
    await eventually(() => row('from-comfy').count()).toBe(1)
    await eventually(() => found.count()).toBe(0)
    expect(existsSync(join(comfy, 'models', 'checkpoints', 'from-comfy.safetensors'))).toBe(true)
  })
})

describe('a model', () => {
  it('starts the form of the Studio with its own defaults, which can be taken back and exported', async () => {
    await page.getByTestId('model-default-steps').fill('9')
    await page.getByTestId('model-default-guidanceScale').fill('2.5')
    await page.keyboard.press('Tab')
    await eventually(() => page.getByTestId('model-defaults').getByText('changed').count()).toBe(2)
    await page.getByTestId('model-defaults-export').click()
    const file = join(home.home, 'tiny-defaults.json')
    await eventually(() => existsSync(file)).toBe(true)
    expect(JSON.parse(await readFile(file, 'utf8'))).toMatchObject({
      model: { id: 'tiny' },
      defaults: { steps: 9, guidanceScale: 2.5, sampler: 'euler', width: 128 },
    })
    await page.keyboard.press('Control+1')
    await page.getByTestId('generate').click()
    await eventually(async () => (await savedPictures(home.home)).length).toBe(1)
    expect((await savedPictures(home.home))[0].recipe?.request).toMatchObject({ steps: 9, guidanceScale: 2.5 })
    await reopen()
    expect(await page.getByTestId('model-default-steps').inputValue()).toBe('9')
    await page.getByTestId('model-defaults-reset').click()
    await eventually(() => page.getByTestId('model-default-steps').inputValue()).toBe('4')
  })

  it('goes to the bin and comes back by Undo and by Mod+Z', async () => {
    await page.getByTestId('model-remove').click()
    await eventually(() => row('tiny').count()).toBe(0)
    expect(await onDisk()).toEqual(['.bin'])
    await shot('models-empty')
    await page.getByTestId('toast').getByRole('button', { name: 'Undo' }).click()
    await eventually(() => row('tiny').getAttribute('data-state')).toBe('ready')
    expect(await onDisk()).toContain('tiny')
  })

  it('that is hidden is not offered in the Studio; the default comes first', async () => {
    await importDreamy()
    await eventually(() => row('dreamy-8').count()).toBe(1)
    const first = () => page.getByTestId('models-list').getByRole('option').first().innerText()
    expect(await first()).toContain('Dreamy')
    await row('tiny').click()
    await page.getByTestId('model-default').click()
    await eventually(first).toContain('Tiny')
    await row('dreamy-8').click()
    await page.getByTestId('model-default').click()
    await eventually(first).toContain('Dreamy')
    await row('tiny').click()
    await page.getByTestId('model-hide').click()
    await eventually(() => row('tiny').getByLabel('Hidden').count()).toBe(1)
    await page.keyboard.press('Control+1')
    const select = page.getByTestId('model-select')
    if ((await select.count()) > 0) expect(await select.innerText()).not.toContain('Tiny')
    await page.keyboard.press('Control+5')
    await row('tiny').click()
    await page.getByTestId('model-hide').click()
    await eventually(() => row('tiny').getByLabel('Hidden').count()).toBe(0)
  })

  it('is chosen with the arrow keys, and reflows at 200 % text', async () => {
    await importDreamy()
    await eventually(() => row('dreamy-8').count()).toBe(1)
    await row('dreamy-8').focus()
    await page.keyboard.press('Home')
    const name = () => page.getByTestId('model-detail').locator('h2').innerText()
    await eventually(name).toBe('Dreamy 8')
    await page.keyboard.press('ArrowDown')
    await eventually(name).toBe('Tiny')
    await page.setViewportSize({ width: 1024, height: 640 })
    await page.evaluate(() => (document.documentElement.style.fontSize = '200%'))
    const overflow = await page.evaluate(() => {
      const screen = document.querySelector('[data-testid="screen-models"]')!
      return [screen.scrollWidth - screen.clientWidth, document.documentElement.scrollWidth - innerWidth]
    })
    expect(overflow).toEqual([0, 0])
    await shot('models-200')
  })
})
