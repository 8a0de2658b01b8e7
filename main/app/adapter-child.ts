import { Worker } from 'node:worker_threads'
import { VignetteError, type ErrorReport } from '../../models/errors.ts'
import type { AdapterReader, AdapterReading, Against } from './adapter-reader.ts'

// The reader of adapters in a thread of its own, seen from this one.

export type ReaderAsk =
  | { do: 'shape'; against: Against }
  | { do: 'inspect'; id: number; file: string; key: string }
  | { do: 'hash'; id: number; file: string }
  | { do: 'stop'; id: number }

export type ReaderReply = { id: number; value?: AdapterReading | string; error?: ErrorReport }

/** A thread that runs adapter-worker.ts. */
export type ReaderChild = {
  post(ask: ReaderAsk): void
  onReply(listener: (reply: ReaderReply) => void): void
  onExit(listener: () => void): void
  kill(): void
}

type Waiting = { ask: ReaderAsk; resolve: (value: never) => void; reject: (error: unknown) => void; tries: number }

/** How often one file may take the thread down before it is given up. */
const maxTries = 2
/** A reader that nobody asks for this long is ended: it is there again when it is needed. */
const idleMs = 60_000

/** Starts the thread when there is something to read, again when it died, and ends it when it is idle. */
export class ChildReader implements AdapterReader {
  readonly #start: () => ReaderChild
  #child: ReaderChild | undefined
  #sent = new Set<string>()
  readonly #shapes = new Map<string, Against>()
  readonly #waiting = new Map<number, Waiting>()
  #nextId = 1
  #idle: ReturnType<typeof setTimeout> | undefined

  constructor(start: () => ReaderChild) {
    this.#start = start
  }

  inspect(file: string, against: Against): Promise<AdapterReading> {
    this.#shapes.set(against.key, against)
    return this.#ask((id) => ({ do: 'inspect', id, file, key: against.key }))
  }

  hash(file: string, signal?: AbortSignal): Promise<string> {
    return this.#ask((id) => ({ do: 'hash', id, file }), signal)
  }

  close(): void {
    clearTimeout(this.#idle)
    const child = this.#child
    this.#child = undefined
    child?.kill()
    for (const { reject } of this.#waiting.values()) reject(new Error('the reader of adapters was closed'))
    this.#waiting.clear()
  }

  async #ask<T>(make: (id: number) => ReaderAsk, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted()
    const id = this.#nextId++
    const stop = () => this.#child?.post({ do: 'stop', id })
    signal?.addEventListener('abort', stop)
    try {
      return await new Promise<T>((resolve, reject) => {
        const waiting = { ask: make(id), resolve: resolve as Waiting['resolve'], reject, tries: 0 }
        this.#waiting.set(id, waiting)
        this.#post(waiting)
      })
    } catch (error) {
      signal?.throwIfAborted() // the other side tells of it as of any failure
      throw error
    } finally {
      signal?.removeEventListener('abort', stop)
    }
  }

  #post(waiting: Waiting): void {
    clearTimeout(this.#idle)
    waiting.tries++
    const child = (this.#child ??= this.#started())
    const { ask } = waiting
    if (ask.do === 'inspect' && !this.#sent.has(ask.key)) {
      this.#sent.add(ask.key)
      child.post({ do: 'shape', against: this.#shapes.get(ask.key)! })
    }
    child.post(ask)
  }

  #started(): ReaderChild {
    const child = this.#start()
    this.#sent = new Set()
    child.onReply(({ id, value, error }) => {
      const waiting = this.#waiting.get(id)
      this.#waiting.delete(id)
      if (error) waiting?.reject(new VignetteError(error.code, error.message, { hint: error.hint }))
      else waiting?.resolve(value as never)
      if (this.#waiting.size === 0) this.#rest()
    })
    child.onExit(() => {
      if (this.#child !== child) return
      this.#child = undefined
      for (const [id, waiting] of [...this.#waiting]) {
        if (waiting.tries < maxTries) this.#post(waiting)
        else {
          this.#waiting.delete(id)
          waiting.reject(new Error('the reader of adapters ended while it read this file'))
        }
      }
    })
    return child
  }

  #rest(): void {
    clearTimeout(this.#idle)
    this.#idle = setTimeout(() => {
      const child = this.#child
      this.#child = undefined
      child?.kill()
    }, idleMs)
    this.#idle.unref?.()
  }
}

/** Starts the built file of adapter-worker.ts as a thread. */
export function readerThread(entry: string): ReaderChild {
  const thread = new Worker(entry, { name: 'adapters' })
  return {
    post: (ask) => thread.postMessage(ask),
    onReply: (listener) => void thread.on('message', listener),
    onExit: (listener) => {
      thread.once('exit', listener)
      thread.once('error', listener) // out of memory, say
    },
    kill: () => void thread.terminate(),
  }
}
