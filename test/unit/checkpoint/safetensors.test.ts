import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readShards } from '../../../models/checkpoint/folder.ts'
import { layOut, readSafetensors, readTensor, writeSafetensors } from '../../../models/checkpoint/safetensors.ts'

let folder: string
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'vignette-'))))
afterAll(() => rm(folder, { recursive: true, force: true }))

let number = 0
async function file(content: Uint8Array | string, name = `${number++}.safetensors`): Promise<string> {
  await writeFile(join(folder, name), content)
  return join(folder, name)
}

/** Length, header and data as they are, right or wrong. */
function raw(header: string | Uint8Array, data = 0, length?: bigint): Uint8Array {
  const bytes = typeof header === 'string' ? Buffer.from(header) : header
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(length ?? BigInt(bytes.length))
  return Buffer.concat([size, bytes, Buffer.alloc(data)])
}
const entry = (begin: number, end: number, shape = `[${(end - begin) / 2}]`, dtype = 'F16') =>
  `{"dtype":"${dtype}","shape":${shape},"data_offsets":[${begin},${end}]}`
const refused = (content: Uint8Array | string, name?: string) =>
  file(content, name)
    .then(readSafetensors)
    .then(
      () => 'accepted',
      (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
    )

describe('a valid file', () => {
  it('gives names, types, shapes, places and notes', async () => {
    const found = await readSafetensors(
      await file(
        raw(
          ` \n{"__metadata__":{"a":"1","b":2},"w":${entry(0, 8, '[2,2]')},"s":${entry(8, 12, '[]', 'F32')},"none":${entry(12, 12, '[0]')}}  `,
          12,
        ),
      ),
    )
    expect(found.metadata).toEqual(new Map([['a', '1']]))
    expect([...found.tensors].map(([name, { dtype, shape, length }]) => [name, dtype, shape, length])).toEqual([
      ['w', 'F16', [2, 2], 8],
      ['s', 'F32', [], 4],
      ['none', 'F16', [0], 0],
    ])
  })
  it('may name its tensors like parts of the language', async () => {
    const found = await readSafetensors(await file(raw(`{"__proto__":${entry(0, 2)},"constructor":${entry(2, 4)}}`, 4)))
    expect([...found.tensors.keys()]).toEqual(['__proto__', 'constructor'])
  })
  it('may have no tensors', async () => {
    expect((await readSafetensors(await file(raw('{}')))).tensors.size).toBe(0)
  })
})

describe('a damaged or hostile file is refused before its data is touched', () => {
  it.each([
    ['empty', new Uint8Array(0), 'it has only 0 bytes'],
    ['a length of 2^60', raw('{}', 0, 2n ** 60n), 'claims 1152921504606846976 bytes'],
    ['a length just over the cap', raw('{}', 0, 100_000_001n), 'claims 100000001 bytes'],
    ['a length beyond the file', raw('{}', 0, 4000n), 'ends inside its table of contents'],
    ['no JSON', raw('{"a":'), 'not valid'],
    ['a list', raw('[1,2]'), 'not valid'],
    ['bad UTF-8', raw(Uint8Array.of(0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d)), 'not text'],
    ['a byte-order mark', raw('\ufeff{}'), 'not valid'],
    ['overlap', raw(`{"a":${entry(0, 8)},"b":${entry(4, 12)}}`, 12), '"b" overlaps'],
    ['two names for one place', raw(`{"a":${entry(0, 8)},"b":${entry(0, 8)}}`, 8), 'overlaps'],
    ['a gap', raw(`{"a":${entry(0, 4)},"b":${entry(8, 12)}}`, 12), 'gap before "b"'],
    ['a gap at the start', raw(`{"a":${entry(4, 8)}}`, 8), 'gap before "a"'],
    ['trailing bytes', raw(`{"a":${entry(0, 4)}}`, 9), '5 bytes follow'],
    ['truncation', raw(`{"a":${entry(0, 4)}}`, 3), 'it should have'],
    ['a repeated name', raw(`{"a":${entry(0, 4)},"\\u0061":${entry(4, 8)}}`, 8), '"a" is listed twice'],
    ['a repeated empty tensor', raw(`{"a":${entry(0, 0)},"a":${entry(0, 0)}}`), '"a" is listed twice'],
    ['a shape that does not fit', raw(`{"a":${entry(0, 8, '[3]')}}`, 8), 'does not fit its shape'],
    [
      'a shape that overflows',
      raw(`{"a":${entry(0, 0, '[4294967296,4294967296,4294967296]')}}`),
      'does not fit its shape',
    ],
    ['a negative size', raw(`{"a":${entry(0, 4, '[-2]')}}`, 4), 'entry for "a"'],
    ['a fractional offset', raw(`{"a":{"dtype":"F16","shape":[1],"data_offsets":[0,2.5]}}`, 2), 'entry for "a"'],
    [
      'an end before its start',
      raw(`{"a":{"dtype":"F16","shape":[0],"data_offsets":[2,0]}}`, 2),
      'does not fit its shape',
    ],
    ['a missing field', raw('{"a":{"dtype":"F16","shape":[1]}}', 2), 'entry for "a"'],
    ['notes that are no object', raw('{"__metadata__":[]}'), 'its notes'],
  ])('%s', async (_, content, message) => {
    expect(await refused(content)).toMatch(/^file-unreadable: .* is damaged: /)
    expect(await refused(content)).toContain(message)
  })

  it('an unknown element type is named', async () => {
    expect(await refused(raw(`{"a":${entry(0, 4, '[8]', 'F4')}}`, 4))).toMatch(/^checkpoint-unsupported: .*as F4/)
    expect(await refused(raw(`{"a":${entry(0, 4, '[8]', 'toString')}}`, 4))).toMatch(/^checkpoint-unsupported/)
  })

  it('millions of names for one place are refused quickly', async () => {
    const many = Array.from({ length: 50_000 }, (_, i) => `"t${i}":${entry(0, 8)}`).join(',')
    const startedAt = performance.now()
    expect(await refused(raw(`{${many}}`, 8))).toContain('overlaps')
    expect(performance.now() - startedAt).toBeLessThan(10_000)
  })
})

describe('another kind of file under this name is named', () => {
  it.each([
    ['a pickle', Buffer.from('8002637472616e73666f726d65727321', 'hex'), 'checkpoint-unsafe', 'pickle'],
    [
      'a torch archive',
      Buffer.concat([Buffer.from('PK\x03\x04\0\0\b\b'), Buffer.alloc(18), Buffer.from('archive/data.pkl')]),
      'checkpoint-unsafe',
      'pickle',
    ],
    ['a ZIP', Buffer.concat([Buffer.from('PK\x03\x04'), Buffer.alloc(30)]), 'file-unreadable', 'ZIP archive'],
    ['a web page', Buffer.from('\n<!DOCTYPE html><html><body>404</body></html>'), 'file-unreadable', 'web page'],
    ['a GGUF', Buffer.from('GGUF\x03\0\0\0\0\0\0\0\0\0'), 'checkpoint-unsupported', 'GGUF'],
    [
      'a Git LFS pointer',
      Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'),
      'file-unreadable',
      'Git LFS',
    ],
  ])('%s', async (_, content, code, word) => {
    const message = await refused(content)
    expect(message).toMatch(new RegExp(`^${code}: `))
    expect(message).toContain(word)
  })
  it('a pickle is refused by its name too, whatever it holds', async () => {
    expect(await refused('anything', 'model.ckpt')).toMatch(/^checkpoint-unsafe: model.ckpt is a pickle/)
  })
  it('a valid file is read under any name', async () => {
    expect(await refused(raw(`{"a":${entry(0, 4)}}`, 4), 'renamed.bin')).toBe('accepted')
  })
})

describe('the writer', () => {
  it('makes files that read back, each tensor aligned to its size, the data on a page', async () => {
    const tensors = [
      { name: 'bias', dtype: 'F16' as const, shape: [3] },
      { name: 'weight', dtype: 'F32' as const, shape: [64, 64] },
      { name: 'odd', dtype: 'U8' as const, shape: [5] },
      { name: 'norm', dtype: 'F16' as const, shape: [320] },
    ]
    const path = join(folder, 'written.safetensors')
    await writeSafetensors(
      path,
      tensors,
      function* ({ name, shape, dtype }) {
        const size = shape.reduce((a, b) => a * b, { F16: 2, F32: 4, U8: 1 }[dtype as 'F16'])
        for (let i = 0; i < size; i += 3) yield Buffer.alloc(Math.min(3, size - i), name)
      },
      { note: 'yes' },
    )
    const found = await readSafetensors(path)
    expect(found.metadata.get('note')).toBe('yes')
    expect(new Set(found.tensors.keys())).toEqual(new Set(tensors.map(({ name }) => name)))
    const [weight, norm, bias] = ['weight', 'norm', 'bias'].map((name) => found.tensors.get(name)!)
    expect([weight.offset % 4096, norm.offset % 128, bias.offset % 2]).toEqual([0, 0, 0])
    expect(
      Buffer.from(await readTensor(norm))
        .subarray(0, 4)
        .toString(),
    ).toBe('norn')
  })
  it('leaves nothing behind when its source fails', async () => {
    const before = await readdir(folder)
    const failing = writeSafetensors(join(folder, 'no.safetensors'), [{ name: 'a', dtype: 'F16', shape: [2] }], () => {
      throw new Error('source failed')
    })
    await expect(failing).rejects.toThrow('source failed')
    expect(await readdir(folder)).toEqual(before)
  })
  it('plans without holes', () => {
    const plan = layOut([1, 4, 2, 512].map((size) => ({ name: `t${size}`, dtype: 'F16' as const, shape: [size] })))
    let end = plan.header.length
    for (const { offset, length } of plan.tensors) {
      expect(offset).toBe(end)
      end += length
    }
    expect(end).toBe(plan.bytes)
  })
})

describe('sharded sets', () => {
  const shard = raw(`{"a":${entry(0, 4)}}`, 4)
  it('resolve names inside their own folder only', async () => {
    await file(shard, 's-00001.safetensors')
    const index = (map: object) => file(JSON.stringify({ weight_map: map }), 's.safetensors.index.json')
    expect((await readShards(await index({ a: 's-00001.safetensors' }))).tensors.has('a')).toBe(true)
    for (const outside of ['../s-00001.safetensors', '/etc/passwd', 'sub/../../x.safetensors', '', '.', 7]) {
      await expect(readShards(await index({ a: outside })), String(outside)).rejects.toMatchObject({
        code: 'file-unreadable',
        message: expect.stringContaining('outside its own folder'),
      })
    }
    await expect(readShards(await index({ b: 's-00001.safetensors' }))).rejects.toMatchObject({
      code: 'checkpoint-incomplete',
    })
  })
  it('say when a shard is not there', async () => {
    const path = await file(JSON.stringify({ weight_map: { a: 'absent.safetensors' } }), 'x.safetensors.index.json')
    await expect(readShards(path)).rejects.toMatchObject({ code: 'ENOENT' })
    expect((await readFile(path)).length).toBeGreaterThan(0)
  })
})
