import { Worker } from 'node:worker_threads'

/** What the encoder makes of a prompt: see `measurePrompt`. */
export type PromptMeasure = {
  tokens: number
  limit: number
  parts: number
  /** Where in the text the tail begins that is not read. */
  unreadFrom?: number
}

export type PromptQuestion = { id: number; texts: string[] }
export type PromptAnswer = { id: number; measures: PromptMeasure[] }

type Waiting = { resolve: (measures: PromptMeasure[]) => void; reject: (error: Error) => void }

/**
 * Counts prompts beside the main process: reading the vocabulary takes longer than a window may wait. The thread is
 * started with the first prompt and keeps nothing alive.
 */
export class PromptReader {
  readonly #entry: string
  readonly #waiting = new Map<number, Waiting>()
  #worker: Worker | undefined
  #next = 0

  /** `entry` is the built prompt-worker.ts. */
  constructor(entry: string) {
    this.#entry = entry
  }

  measure(texts: string[]): Promise<PromptMeasure[]> {
    const worker = (this.#worker ??= this.#start())
    const id = this.#next++
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject })
      worker.postMessage({ id, texts } satisfies PromptQuestion)
    })
  }

  async close(): Promise<void> {
    await this.#worker?.terminate()
  }

  #start(): Worker {
    const worker = new Worker(this.#entry)
    worker.unref()
    worker.on('message', ({ id, measures }: PromptAnswer) => {
      this.#waiting.get(id)?.resolve(measures)
      this.#waiting.delete(id)
    })
    const gone = (error: Error) => {
      if (this.#worker === worker) this.#worker = undefined
      for (const { reject } of this.#waiting.values()) reject(error)
      this.#waiting.clear()
    }
    worker.on('error', gone)
    worker.on('exit', (code) => gone(new Error(`the thread that counts prompts ended (code ${code})`)))
    return worker
  }
}
