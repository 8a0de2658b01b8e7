import type { JobEvent } from '../../../main/engine/client.ts'
import type { EngineJob } from '../../../main/engine/protocol.ts'

/** An engine whose every event the test sends by hand. It answers a cancel as the real one does: with its last event. */
export class FakeEngine {
  readonly started: EngineJob[] = []
  #queue: JobEvent[] = []
  #wake: () => void = () => {}

  async *run(job: EngineJob): AsyncGenerator<JobEvent, void, void> {
    this.started.push(job)
    this.#queue = []
    for (;;) {
      while (this.#queue.length === 0) await new Promise<void>((resolve) => (this.#wake = resolve))
      const event = this.#queue.shift()!
      yield event
      if (event.type === 'finished' || event.type === 'cancelled' || event.type === 'failed') return
    }
  }

  cancel(jobId: string): void {
    this.send({ type: 'cancelled', jobId })
  }

  send(event: JobEvent): void {
    this.#queue.push(event)
    this.#wake()
  }

  get current(): EngineJob {
    return this.started[this.started.length - 1]
  }

  /** One picture of the running job. */
  sendImage(index = 0): void {
    const { id, request } = this.current
    const { width, height } = request
    this.send({ type: 'image', jobId: id, index, seed: request.seed + index, width, height, png: new Uint8Array([1]) })
  }
}
