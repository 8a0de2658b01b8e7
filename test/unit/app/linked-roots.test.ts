import { mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { readExtraPaths } from '../../../main/app/extra-paths.ts'
import { adapterFoldersOf, checkpointsOf, LinkedRoots, lookAtRoot } from '../../../main/app/linked-roots.ts'

let top: string
beforeEach(async () => void (top = await mkdtemp(join(tmpdir(), 'vignette-roots-'))))
afterEach(() => rm(top, { recursive: true, force: true }))

async function put(...names: string[]): Promise<void> {
  for (const name of names) {
    const file = join(top, name)
    await mkdir(dirname(file), { recursive: true })
    await writeFile(file, 'weights')
  }
}

async function listing(folder: string): Promise<unknown[]> {
  const names = (await readdir(folder, { recursive: true })).sort()
  return Promise.all(
    names.map(async (name) => {
      const { mtimeMs, size } = await stat(join(folder, name))
      return [name, mtimeMs, size]
    }),
  )
}

describe('extra_model_paths.yaml', () => {
  it('gives kinds with folders, single or in a block, from the base path of their section', () => {
    const text = `
#comment
comfyui:
    base_path: /data/comfy/   # here
    is_default: true
    checkpoints: models/checkpoints/
    loras: |
        models/loras
        "more loras"

a1111:
  base_path: webui
  loras: |
    models/Lora
    models/LyCORIS
  configs: models/Stable-diffusion
other:
  vae: '/abs/vae'
nonsense
  : [1
`
    expect(readExtraPaths(text, '/beside')).toEqual([
      { kind: 'is_default', path: '/data/comfy/true' },
      { kind: 'checkpoints', path: '/data/comfy/models/checkpoints' },
      { kind: 'loras', path: '/data/comfy/models/loras' },
      { kind: 'loras', path: '/data/comfy/more loras' },
      { kind: 'loras', path: '/beside/webui/models/Lora' },
      { kind: 'loras', path: '/beside/webui/models/LyCORIS' },
      { kind: 'configs', path: '/beside/webui/models/Stable-diffusion' },
      { kind: 'vae', path: '/abs/vae' },
    ])
  })

  it('survives anything', () => {
    expect(readExtraPaths('', '/r')).toEqual([])
    expect(readExtraPaths('\u0000\n\t- x\n:::\n  loras: x', '/r')).toEqual([])
  })
})

describe('a root', () => {
  it('of ComfyUI is known by its folders, with what its own list of folders adds', async () => {
    await put(
      'ui/models/loras/ink.safetensors',
      'ui/models/loras/deep/old.pt',
      'ui/models/checkpoints/base.safetensors',
      'ui/models/embeddings/word.safetensors',
      'ui/models/loras/.hidden.safetensors',
      'elsewhere/paper.safetensors',
    )
    await writeFile(join(top, 'ui', 'extra_model_paths.yaml'), 'mine:\n  base_path: ..\n  loras: elsewhere\n')
    const report = await lookAtRoot(join(top, 'ui'))
    expect(report).toMatchObject({ layout: 'comfyui', name: 'ui' })
    expect(report.kinds.map(({ kind, count, unreadable }) => [kind, count, unreadable])).toEqual([
      ['adapters', 2, 1],
      ['checkpoints', 1, 0],
      ['embeddings', 1, 0],
    ])
    expect(await adapterFoldersOf([join(top, 'ui')])).toEqual([
      join(top, 'ui/models/loras'),
      join(top, 'ui/models/embeddings'),
      join(top, 'elsewhere'),
    ])
  })

  it('of the A1111 family is known whatever the case of its names', async () => {
    await put(
      'forge/models/Lora/a.safetensors',
      'forge/models/LyCORIS/b.safetensors',
      'forge/models/Stable-diffusion/anime/base.safetensors',
      'forge/models/Stable-diffusion/old.ckpt',
      'forge/embeddings/easy.safetensors',
    )
    const report = await lookAtRoot(join(top, 'forge'))
    expect(report.layout).toBe('a1111')
    expect(report.kinds).toEqual([
      { kind: 'adapters', count: 2, unreadable: 0, bytes: 14 },
      { kind: 'checkpoints', count: 1, unreadable: 1, bytes: 14 },
      { kind: 'embeddings', count: 1, unreadable: 0, bytes: 7 },
    ])
    const found = await checkpointsOf([join(top, 'forge')])
    expect(found.map(({ file, bytes }) => [file.slice(top.length), bytes])).toEqual([
      ['/forge/models/Stable-diffusion/old.ckpt', 7],
      ['/forge/models/Stable-diffusion/anime/base.safetensors', 7],
    ])
  })

  it('of no known layout is a folder of adapters, and two names of one folder are one', async () => {
    await put('mine/a.safetensors', 'mine/b/c.safetensors')
    expect(await lookAtRoot(join(top, 'mine'))).toMatchObject({
      layout: 'plain',
      kinds: [{ kind: 'adapters', count: 2 }],
    })
    expect(await checkpointsOf([join(top, 'mine')])).toEqual([])
    await put('ui/models/loras/ink.safetensors')
    await symlink(join(top, 'ui/models/loras'), join(top, 'ui/models/embeddings'))
    expect(await adapterFoldersOf([join(top, 'ui')])).toHaveLength(1)
  })

  it('that is no folder is refused, and counting can be ended', async () => {
    await put('file.txt', 'mine/a.safetensors')
    await expect(lookAtRoot(join(top, 'file.txt'))).rejects.toMatchObject({ code: 'file-unreadable' })
    await expect(lookAtRoot(join(top, 'nowhere'))).rejects.toMatchObject({ code: 'file-unreadable' })
    await expect(lookAtRoot(join(top, 'mine'), AbortSignal.abort())).rejects.toThrow()
  })

  it('is remembered and forgotten, and nothing in it changes', async () => {
    await put('ui/models/loras/ink.safetensors', 'ui/models/checkpoints/base.safetensors')
    const before = await listing(join(top, 'ui'))
    let changes = 0
    const file = join(top, 'home', 'linked-roots.json')
    const roots = await LinkedRoots.open(file, () => changes++)
    await roots.add(join(top, 'ui'))
    await roots.add(join(top, 'ui'))
    await expect(roots.add(join(top, 'gone'))).rejects.toMatchObject({ code: 'file-unreadable' })
    expect((await LinkedRoots.open(file)).list()).toEqual([join(top, 'ui')])
    await roots.remove(join(top, 'ui'))
    expect((await LinkedRoots.open(file)).list()).toEqual([])
    expect(changes).toBe(2)
    expect(await listing(join(top, 'ui'))).toEqual(before)
  })
})
