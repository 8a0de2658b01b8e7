import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createLog } from '../../../main/app/log.ts'
import { Network } from '../../../main/app/network.ts'
import { openSettings, type SettingsStore } from '../../../main/app/settings.ts'
import { checkForUpdate, compareVersions } from '../../../main/app/updates.ts'
import type { NetworkEntry } from '../../../preload/contract/network.ts'

let folder: string
let settings: SettingsStore
let network: Network
let told: NetworkEntry[]
let server: Server
let address: string
let asked: string[]
let respond: (request: IncomingMessage, response: ServerResponse) => void

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'vignette-network-'))
  settings = await openSettings(join(folder, 'settings.json'))
  await open()
  asked = []
  respond = (_, response) => response.end('hello')
  server = createServer((request, response) => {
    asked.push(request.url!)
    respond(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterEach(async () => {
  server.closeAllConnections()
  server.close()
  await rm(folder, { recursive: true, force: true })
})

async function open(): Promise<void> {
  network = await Network.open({
    settings,
    file: join(folder, 'network.json'),
    emit: (entries) => (told = entries),
    log: createLog(join(folder, 'log.txt')),
  })
}

async function read(body: AsyncIterable<Uint8Array>): Promise<string> {
  const parts: Uint8Array[] = []
  for await (const part of body) parts.push(part)
  return Buffer.concat(parts).toString()
}

const refusal = { code: 'offline' }

it('AC59 lets nothing out while offline, and the ledger stays empty', async () => {
  await expect(network.request('update-check', address)).rejects.toMatchObject(refusal)
  await expect(network.request('model-download', `${address}/model`)).rejects.toMatchObject(refusal)
  await expect(checkForUpdate(network, { address, version: '1.0.0' })).rejects.toMatchObject(refusal)
  expect(asked).toEqual([])
  expect(network.ledger()).toEqual([])
  await expect(readFile(join(folder, 'network.json'))).rejects.toThrow()
})

it('turns a purpose on by its first use, and only that one', async () => {
  await settings.change({ isOnline: true })
  const reply = await network.request('update-check', address)
  expect(await read(reply.body)).toBe('hello')
  expect(settings.get()).toMatchObject({ mayCheckUpdates: true })
  expect(settings.get().mayDownloadModels).toBeUndefined()
  // Switched off by hand it stays off.
  await settings.change({ mayCheckUpdates: false })
  await expect(network.request('update-check', address)).rejects.toMatchObject(refusal)
  expect(asked).toEqual(['/'])
})

it('keeps a ledger of time, host, purpose and bytes over a restart', async () => {
  await settings.change({ isOnline: true })
  await read((await network.request('model-download', `${address}/a.bin`)).body)
  const entry = { host: new URL(address).host, purpose: 'model-download', bytes: 5, outcome: 'done' }
  expect(told).toMatchObject([entry])
  await open()
  expect(network.ledger()).toMatchObject([entry])
  expect(Date.now() - network.ledger()[0].time).toBeLessThan(60_000)
})

it('follows to other places with an entry for each, and never from outside to this computer', async () => {
  await settings.change({ isOnline: true })
  respond = ({ url }, response) =>
    url === '/from' ? response.writeHead(302, { location: '/to' }).end('moved') : response.end('there')
  expect(await read((await network.request('model-download', `${address}/from`)).body)).toBe('there')
  expect(network.ledger().map(({ bytes, outcome }) => [bytes, outcome])).toEqual([
    [5, 'done'],
    [5, 'done'],
  ])
  respond = (_, response) => void response.writeHead(302, { location: '/again' }).end()
  await expect(network.request('model-download', address)).rejects.toMatchObject({ code: 'bad-request' })
  respond = (_, response) => void response.writeHead(302, { location: 'file:///etc/passwd' }).end()
  await expect(network.request('model-download', address)).rejects.toMatchObject({ code: 'bad-request' })
})

it('asks only encrypted addresses without passwords', async () => {
  await settings.change({ isOnline: true })
  for (const wrong of [
    'http://example.org/',
    'ftp://a/',
    'file:///etc/passwd',
    'nothing',
    'https://me:pass@example.org/',
  ])
    await expect(network.request('model-download', wrong)).rejects.toMatchObject({ code: 'bad-request' })
  expect(network.ledger()).toEqual([])
})

it('ends what is under way when the person goes offline', async () => {
  await settings.change({ isOnline: true })
  respond = (_, response) => void response.write('first part')
  const { body } = await network.request('model-download', address)
  const bytes = body[Symbol.asyncIterator]()
  expect(Buffer.from((await bytes.next()).value as Uint8Array).toString()).toBe('first part')
  await settings.change({ isOnline: false })
  await expect(bytes.next()).rejects.toMatchObject({ code: 'network-failed' })
  expect(network.ledger()).toMatchObject([{ bytes: 10, outcome: 'stopped' }])
})

it('says so when nobody answers', async () => {
  await settings.change({ isOnline: true })
  server.close()
  server.closeAllConnections()
  await expect(network.request('update-check', address)).rejects.toMatchObject({ code: 'network-failed' })
  expect(network.ledger()).toMatchObject([{ bytes: 0, outcome: 'failed' }])
})

describe('the update check', () => {
  const release = (tag_name: string, more: object = {}) => ({
    tag_name,
    body: 'Notes',
    html_url: 'https://a.org/r',
    ...more,
  })

  it('finds the newest finished release', async () => {
    await settings.change({ isOnline: true })
    const list = [
      release('v0.9.0'),
      release('v1.2.0', { published_at: '2027-01-01T00:00:00Z' }),
      release('v2.0.0-beta', { prerelease: true }),
      release('v3.0.0', { draft: true }),
      release('nightly'),
    ]
    respond = (_, response) => void response.end(JSON.stringify(list))
    const newer = { version: '1.2.0', notes: 'Notes', url: 'https://a.org/r', publishedAt: '2027-01-01T00:00:00Z' }
    expect(await checkForUpdate(network, { address, version: '1.1.9', now: () => 5 })).toEqual({ checkedAt: 5, newer })
    expect(await checkForUpdate(network, { address, version: '1.2.0', now: () => 5 })).toEqual({ checkedAt: 5 })
  })

  it('does not take anything else for a list of releases', async () => {
    await settings.change({ isOnline: true })
    for (const text of ['<html>', '{"message":"Not Found"}', '[{"tag_name":5}]', 'x'.repeat(3_000_000)]) {
      respond = (_, response) => void response.end(text)
      await expect(checkForUpdate(network, { address, version: '1.0.0' })).rejects.toMatchObject({
        code: 'network-failed',
      })
    }
    respond = (_, response) => void response.writeHead(403).end('[]')
    await expect(checkForUpdate(network, { address, version: '1.0.0' })).rejects.toThrow(/403/)
  })

  it('orders versions by number', () => {
    const sorted = ['1.10.0', 'v1.2.0', '1.2', '0.9.9', '1.2.0-beta', 'none'].sort(compareVersions)
    expect(sorted).toEqual(['none', '0.9.9', '1.2.0-beta', 'v1.2.0', '1.2', '1.10.0'])
  })
})
