import { VignetteError } from '../../models/errors.ts'
import type { Child } from '../engine/client.ts'
import type { ModelCommand, ModelProgress, ModelReply, ModelWork } from '../engine/protocol.ts'

/** A process of main/engine/model-worker.ts. */
export type ModelWorker = Child<ModelCommand, ModelReply>

export type RunningWork = {
  /** Undefined when it was cancelled. */
  result: Promise<{ value: unknown } | undefined>
  /** Leaves nothing of it. */
  cancel(): void
  /** Ends it where it is, to be gone on with another time; the result then never comes. */
  abandon(): void
}

/** Does one piece of work in a process of its own. */
export function startModelWork(
  spawn: () => ModelWorker,
  work: ModelWork,
  onProgress: (progress: ModelProgress) => void = () => {},
): RunningWork {
  const child = spawn()
  let isAbandoned = false
  const result = new Promise<{ value: unknown } | undefined>((resolve, reject) => {
    child.onMessage((reply) => {
      switch (reply.type) {
        case 'progress':
          return onProgress(reply.progress)
        case 'done':
          resolve({ value: reply.value })
          break
        case 'cancelled':
          resolve(undefined)
          break
        case 'failed': {
          const { code, message, hint } = reply.error
          reject(new VignetteError(code, message, { hint }))
          break
        }
        default:
          reply satisfies never
      }
      child.kill()
    })
    child.onExit((reason) => {
      if (isAbandoned) return
      reject(
        new VignetteError('engine-crashed', `The program that works on models ended early (${reason}).`, {
          hint: 'Try again: it goes on where it was. If it happens again, close other programs to free memory.',
        }),
      )
    })
  })
  child.post({ type: 'work', work })
  return {
    result,
    cancel: () => child.post({ type: 'cancel' }),
    abandon() {
      isAbandoned = true
      child.kill()
    },
  }
}
