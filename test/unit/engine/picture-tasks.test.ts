import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp, { type Sharp } from 'sharp'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { PictureClient, type PictureChild, type PictureReply } from '../../../main/engine/picture-client.ts'
import { doPictureTask } from '../../../main/engine/picture-tasks.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-pictures-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const plain = (width: number, height: number) =>
  sharp({ create: { width, height, channels: 3, background: { r: 200, g: 120, b: 40 } } })
const text = 'a boat\nSteps: 5, Sampler: Euler, CFG scale: 4, Seed: 6, Size: 64x64'
const look = (file: string, thumb?: string) => doPictureTask({ type: 'look', file, thumb })

async function save(name: string, picture: Sharp): Promise<string> {
  await picture.toFile(join(folder, name))
  return join(folder, name)
}

describe('looking at a file', () => {
  it('reads recipes out of Exif in JPEG and WebP, with the size as it is shown', async () => {
    const exif = { IFD0: { ImageDescription: text } }
    const jpeg = await save('a.jpg', plain(40, 20).withExif(exif).withMetadata({ orientation: 6, exif }))
    expect(await look(jpeg)).toMatchObject({
      ...{ format: 'jpg', width: 20, height: 40 },
      recipe: { request: { prompt: 'a boat', seed: 6, steps: 5 } },
      text,
    })
    const webp = await save('a.webp', plain(40, 20).withExif(exif))
    expect(await look(webp)).toMatchObject({ format: 'webp', width: 40, recipe: { request: { prompt: 'a boat' } } })
  })

  it('makes a small version that keeps the shape and is never larger', async () => {
    const file = await save('wide.png', plain(1500, 600))
    const thumb = join(folder, 'thumbs', 'wide.webp')
    await look(file, thumb)
    expect(await sharp(await readFile(thumb)).metadata()).toMatchObject({ format: 'webp', width: 512, height: 205 })
    await doPictureTask({ type: 'thumb', file: await save('small.png', plain(30, 50)), out: thumb })
    expect(await sharp(await readFile(thumb)).metadata()).toMatchObject({ width: 30, height: 50 })
  })

  it('refuses what is no picture, cut off, of another kind or far too large, and says so', async () => {
    const whole = await readFile(await save('whole.png', plain(64, 64)))
    const bomb = Buffer.from(whole)
    bomb.writeUInt32BE(60_000, 16) // says that it is 60000 × 60000
    bomb.writeUInt32BE(60_000, 20)
    const files: [string, Buffer | string][] = [
      ['text.png', 'hello'],
      ['empty.jpg', ''],
      ['cut.png', whole.subarray(0, whole.length - 30)],
      ['bomb.png', bomb],
      ['drawing.svg', '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>'],
    ]
    for (const [name, content] of files) {
      await writeFile(join(folder, name), content)
      await expect(look(join(folder, name)), name).rejects.toMatchObject({ code: 'file-unreadable' })
      await expect(
        doPictureTask({ type: 'thumb', file: join(folder, name), out: join(folder, 'out', 'x.webp') }),
        name,
      ).rejects.toMatchObject({ code: 'file-unreadable' })
    }
    expect(await readdir(join(folder, 'out')).catch(() => [])).toEqual([])
    await expect(look(join(folder, 'absent.png'))).rejects.toMatchObject({ code: 'file-unreadable' })
  })
})

describe('comparing', () => {
  it('counts the pixels that differ, and by how much', async () => {
    const pixels = Buffer.alloc(8 * 8 * 3, 100)
    const raw = { raw: { width: 8, height: 8, channels: 3 } } as const
    const first = await save('1.png', sharp(pixels, raw))
    pixels[0] += 3
    pixels[100] -= 40
    const second = await save('2.png', sharp(pixels, raw))
    const compare = (file: string, other: string) => doPictureTask({ type: 'compare', file, other })
    expect(await compare(first, second)).toEqual({ isSameSize: true, pixels: 2, most: 40 })
    expect(await compare(first, first)).toEqual({ isSameSize: true, pixels: 0, most: 0 })
    expect(await compare(first, await save('3.png', plain(8, 9)))).toMatchObject({ isSameSize: false })
  })
})

describe('the worker', () => {
  /** A child that answers with the file's name, dies on "die", and is counted. */
  function children() {
    let started = 0
    const alive: { kill: () => void }[] = []
    const spawn = (): PictureChild => {
      started++
      let isGone = false
      let reply: (message: PictureReply) => void = () => {}
      let exit: (reason: string) => void = () => {}
      const child: PictureChild = {
        post({ id, task }) {
          setImmediate(() => {
            if (isGone) return
            if (task.file === 'die') child.kill()
            else reply({ id, value: task.file })
          })
        },
        onMessage: (listener) => void (reply = listener),
        onExit: (listener) => void (exit = listener),
        kill() {
          if (isGone) return
          isGone = true
          exit('SIGKILL')
        },
      }
      alive.push(child)
      return child
    }
    return { spawn, count: () => started }
  }

  it('starts when it is needed, ends when nothing comes, and starts again', async () => {
    const { spawn, count } = children()
    const client = new PictureClient(spawn, { idleMs: 20 })
    expect(count()).toBe(0)
    expect(await Promise.all([client.look('a'), client.look('b')])).toEqual(['a', 'b'])
    expect(count()).toBe(1)
    await new Promise((resolve) => setTimeout(resolve, 80))
    expect(await client.look('c')).toBe('c')
    expect(count()).toBe(2)
    client.close()
  })

  it('fails what it was asked when it dies, and the next request gets another', async () => {
    const { spawn, count } = children()
    const client = new PictureClient(spawn)
    await expect(client.look('die')).rejects.toMatchObject({ code: 'file-unreadable' })
    expect(await client.look('a')).toBe('a')
    expect(count()).toBe(2)
    client.close()
  })
})
