import { fork } from 'node:child_process'
import type { ErrorReport } from '../../models/errors.ts'
import { VignetteError } from '../../models/errors.ts'
import type { RecalledRecipe } from '../../preload/contract/images.ts'
import type { Transport } from './protocol.ts'

/** What a picture file is, and what it says of how it was made. */
export type PictureFacts = {
  format: 'png' | 'jpg' | 'webp' | 'avif' | 'gif'
  width: number
  height: number
  recipe?: RecalledRecipe
  /** The recipe as text for other programs, when it is there. */
  text?: string
}

export type PictureDifference = { isSameSize: boolean; pixels: number; most: number }

/** What is asked of the picture worker; `thumb` and `out` are files to write a small WebP into. */
export type PictureTask =
  | { type: 'look'; file: string; thumb?: string }
  | { type: 'thumb'; file: string; out: string }
  | { type: 'compare'; file: string; other: string }

export type PictureCommand = { id: number; task: PictureTask }
export type PictureReply = { id: number } & ({ value: unknown } | { error: ErrorReport })

/** The worker somewhere else: a child or utility process, or a direct call. */
export interface PictureChild extends Transport<PictureCommand, PictureReply> {
  onExit(listener: (reason: string) => void): void
  kill(): void
}

type Waiting = { resolve: (value: unknown) => void; reject: (error: Error) => void }

/**
 * Work on picture files that would hold up the window, done in a process of its own: that starts when it is needed, and
 * ends when nothing has come for a while. When it dies, what it was asked fails and the next request starts another.
 */
export class PictureClient {
  readonly #spawn: () => PictureChild
  readonly #idleMs: number
  readonly #waiting = new Map<number, Waiting>()
  #child: PictureChild | undefined
  #timer: NodeJS.Timeout | undefined
  #lastId = 0

  constructor(spawn: () => PictureChild, { idleMs = 20_000 } = {}) {
    this.#spawn = spawn
    this.#idleMs = idleMs
  }

  look(file: string, thumb?: string): Promise<PictureFacts> {
    return this.#ask({ type: 'look', file, ...(thumb === undefined ? {} : { thumb }) }) as Promise<PictureFacts>
  }

  async thumb(file: string, out: string): Promise<void> {
    await this.#ask({ type: 'thumb', file, out })
  }

  compare(file: string, other: string): Promise<PictureDifference> {
    return this.#ask({ type: 'compare', file, other }) as Promise<PictureDifference>
  }

  /** What it is doing is given up. */
  close(): void {
    clearTimeout(this.#timer)
    const child = this.#child
    this.#gone('the application ends')
    child?.kill()
  }

  #ask(task: PictureTask): Promise<unknown> {
    clearTimeout(this.#timer)
    const id = ++this.#lastId
    const answer = new Promise<unknown>((resolve, reject) => this.#waiting.set(id, { resolve, reject }))
    this.#start().post({ id, task })
    return answer
  }

  #start(): PictureChild {
    if (this.#child) return this.#child
    const child = (this.#child = this.#spawn())
    child.onMessage((reply) => this.#receive(reply))
    child.onExit((reason) => {
      if (child === this.#child) this.#gone(reason)
    })
    return child
  }

  #receive(reply: PictureReply): void {
    const waiting = this.#waiting.get(reply.id)
    this.#waiting.delete(reply.id)
    if ('error' in reply) {
      const { code, message, hint } = reply.error
      waiting?.reject(new VignetteError(code, message, { hint }))
    } else waiting?.resolve(reply.value)
    if (this.#waiting.size > 0) return
    this.#timer = setTimeout(() => {
      const child = this.#child
      this.#child = undefined
      child?.kill()
    }, this.#idleMs)
    this.#timer.unref?.()
  }

  #gone(reason: string): void {
    this.#child = undefined
    for (const { reject } of this.#waiting.values()) {
      reject(new VignetteError('file-unreadable', `The picture could not be read (${reason}).`))
    }
    this.#waiting.clear()
  }
}

/** Starts the worker's entry file as a Node process. `execPath` is another Node than this one, where needed. */
export function forkPictures(
  entry: string,
  options: { execPath?: string; execArgv?: string[]; env?: NodeJS.ProcessEnv } = {},
): PictureChild {
  const settings = { serialization: 'advanced', windowsHide: true, ...options }
  const child = fork(entry, [], settings as Parameters<typeof fork>[2])
  return {
    post: (command) => {
      if (child.connected) child.send(command, () => {})
    },
    onMessage: (listener) => void child.on('message', (reply) => listener(reply as PictureReply)),
    onExit(listener) {
      child.once('exit', (code, signal) => listener(signal ?? `code ${code}`))
      child.once('error', (error) => listener(error.message))
    },
    kill: () => void child.kill('SIGKILL'),
  }
}
