import * as z from 'zod'
import { VignetteError } from '../../models/errors.ts'
import { NetworkEntry, type NetworkPurpose } from '../../preload/contract/network.ts'
import type { Settings } from '../../preload/contract/settings.ts'
import { JsonFile, readJson } from './files.ts'
import type { Log } from './log.ts'
import type { SettingsStore } from './settings.ts'

// The one gate: every byte to or from a network passes here, and lint forbids the ways around it.

const Stored = z.object({ version: z.literal(1), entries: z.array(NetworkEntry) })
const keptEntries = 1000
const maxRedirects = 5

/** The switch of each purpose. */
export const purposeSettings = {
  'update-check': 'mayCheckUpdates',
  'model-download': 'mayDownloadModels',
} as const satisfies Record<NetworkPurpose, keyof Settings>

const purposeNames: Record<NetworkPurpose, string> = {
  'update-check': 'Checking for updates',
  'model-download': 'Downloading models',
}

export type NetworkReply = {
  status: number
  headers: Headers
  /** The bytes as they come; each is in the ledger when it is handed out. */
  body: AsyncIterable<Uint8Array>
}

export type NetworkRequest = {
  headers?: Record<string, string>
  signal?: AbortSignal
  /** How long the other side may take to answer at all. */
  timeoutMs?: number
}

/**
 * Offline is the normal state: while the master switch is off nothing leaves, whatever asks. Each purpose is off as
 * well until it is used once, which is always a click of the person; after that it can be switched off for good.
 * Turning the switch off ends what is under way.
 */
export class Network {
  readonly #settings: SettingsStore
  readonly #emit: (entries: NetworkEntry[]) => void
  readonly #log: Log
  readonly #file: JsonFile<z.infer<typeof Stored>>
  readonly #entries: NetworkEntry[]
  readonly #running = new Map<NetworkEntry, AbortController>()

  private constructor(options: NetworkOptions, entries: NetworkEntry[]) {
    this.#settings = options.settings
    this.#emit = options.emit
    this.#log = options.log
    this.#entries = entries
    this.#file = new JsonFile(options.file, () => ({ version: 1, entries: this.#entries }))
    options.settings.onChange(() => this.#stopForbidden())
  }

  static async open(options: NetworkOptions): Promise<Network> {
    const stored = await readJson(options.file, Stored)
    // What ran when the application ended is over.
    const entries = (stored?.entries ?? []).map((entry) =>
      entry.outcome === 'running' ? { ...entry, outcome: 'stopped' as const } : entry,
    )
    return new Network(options, entries)
  }

  /** Newest first. */
  ledger(): NetworkEntry[] {
    return this.#entries.map((entry) => ({ ...entry }))
  }

  /** Why this purpose may not be used now, in words for the person; undefined when it may. */
  refusal(purpose: NetworkPurpose): VignetteError | undefined {
    const settings = this.#settings.get()
    if (settings.isOnline !== true) {
      return new VignetteError('offline', 'Vignette is offline.', {
        hint: 'Turn the network on under Settings, Privacy & network.',
      })
    }
    // Absent: not used yet, and the first use turns it on.
    if (settings[purposeSettings[purpose]] === false) {
      return new VignetteError('offline', `${purposeNames[purpose]} is switched off.`, {
        hint: 'Turn it on under Settings, Privacy & network.',
      })
    }
    return undefined
  }

  /** Asks for one address, because the person wanted it. Where it leads on to is asked too, each host in the ledger. */
  async request(purpose: NetworkPurpose, address: string, request: NetworkRequest = {}): Promise<NetworkReply> {
    const refusal = this.refusal(purpose)
    if (refusal) throw refusal
    let url = checkedAddress(address)
    const isNearby = isLoopback(url)
    if (this.#settings.get()[purposeSettings[purpose]] === undefined)
      await this.#settings.change({ [purposeSettings[purpose]]: true })
    for (let hop = 0; hop <= maxRedirects; hop++) {
      const reply = await this.#ask(purpose, url, request)
      const location = reply.headers.get('location')
      if (reply.status < 300 || reply.status >= 400 || location === null) return reply
      for await (const part of reply.body) void part // its few bytes count as well
      url = checkedAddress(location, url)
      if (isLoopback(url) && !isNearby) throw refused(url, 'It leads from the internet to this computer.')
    }
    throw refused(url, `It leads on more than ${maxRedirects} times.`)
  }

  async #ask(purpose: NetworkPurpose, url: URL, request: NetworkRequest): Promise<NetworkReply> {
    const entry: NetworkEntry = { time: Date.now(), host: url.host, purpose, bytes: 0, outcome: 'running' }
    const controller = new AbortController()
    const stop = () => controller.abort()
    if (request.signal?.aborted) stop()
    request.signal?.addEventListener('abort', stop)
    const timer = setTimeout(stop, request.timeoutMs ?? 20_000)
    this.#running.set(entry, controller)
    this.#entries.unshift(entry)
    this.#entries.length = Math.min(this.#entries.length, keptEntries)
    await this.#changed()
    const end = (outcome: 'done' | 'failed' | 'stopped') => {
      clearTimeout(timer)
      request.signal?.removeEventListener('abort', stop)
      this.#running.delete(entry)
      if (entry.outcome === 'running') entry.outcome = outcome
      return this.#changed()
    }
    try {
      const response = await fetch(url, {
        redirect: 'manual',
        signal: controller.signal,
        headers: { 'user-agent': 'Vignette', ...request.headers },
        credentials: 'omit',
        referrerPolicy: 'no-referrer',
      })
      clearTimeout(timer)
      return { status: response.status, headers: response.headers, body: this.#count(response, entry, end) }
    } catch (error) {
      await end(controller.signal.aborted ? 'stopped' : 'failed')
      throw this.#failure(url, error, controller.signal.aborted)
    }
  }

  async *#count(
    response: Response,
    entry: NetworkEntry,
    end: (outcome: 'done' | 'failed' | 'stopped') => Promise<void>,
  ): AsyncGenerator<Uint8Array> {
    let outcome: 'done' | 'failed' | 'stopped' = 'stopped'
    try {
      // Node 18 has no async iterator on the stream's type, but its reader is everywhere.
      const reader = response.body?.getReader()
      for (;;) {
        const chunk = await reader?.read()
        if (!chunk || chunk.done) break
        entry.bytes += chunk.value.length
        yield chunk.value
      }
      outcome = 'done'
    } catch (error) {
      const isStopped = this.#running.get(entry)?.signal.aborted ?? true
      outcome = isStopped ? 'stopped' : 'failed'
      throw this.#failure(new URL(response.url || `https://${entry.host}`), error, isStopped)
    } finally {
      await response.body?.cancel().catch(() => {})
      await end(outcome)
    }
  }

  #stopForbidden(): void {
    for (const [{ purpose }, controller] of this.#running) if (this.refusal(purpose)) controller.abort()
  }

  async #changed(): Promise<void> {
    this.#emit(this.ledger())
    await this.#file.save()
  }

  #failure(url: URL, cause: unknown, isStopped: boolean): VignetteError {
    this.#log.warn(`the connection to ${url.host} ${isStopped ? 'was stopped' : 'failed'}`, cause)
    return new VignetteError(
      'network-failed',
      isStopped ? `The connection to ${url.host} was stopped.` : `${url.host} could not be reached.`,
      { hint: 'Check the connection and the address, then try again.', cause },
    )
  }
}

export type NetworkOptions = {
  settings: SettingsStore
  /** The ledger. */
  file: string
  emit: (entries: NetworkEntry[]) => void
  log: Log
}

/** Encrypted, or to this very computer; nothing else is asked, and no password travels in an address. */
function checkedAddress(address: string, base?: URL): URL {
  let url: URL
  try {
    url = new URL(address, base)
  } catch {
    throw new VignetteError('bad-request', `"${address}" is not an address.`, { hint: 'It begins with https://.' })
  }
  if (url.protocol !== 'https:' && !isLoopback(url)) throw refused(url, 'Only addresses with https:// are asked.')
  if (url.username !== '' || url.password !== '') throw refused(url, 'It holds a password.')
  return url
}

function isLoopback({ protocol, hostname }: URL): boolean {
  return protocol === 'http:' && ['127.0.0.1', 'localhost', '[::1]'].includes(hostname)
}

function refused(url: URL, why: string): VignetteError {
  return new VignetteError('bad-request', `This address is not used: ${url.host || url.protocol}`, { hint: why })
}
