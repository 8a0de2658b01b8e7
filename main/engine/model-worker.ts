import { constants, setPriority } from 'node:os'
import { reportError } from '../../models/errors.ts'
import { doModelWork } from './model-tasks.ts'
import type { ModelCommand, ModelReply } from './protocol.ts'

// A process for one piece of work on models, e.g. an import. Cancelling leaves nothing; killed, the work goes on where it
// was when the same is asked of the next process.

/** The part of Electron's `process.parentPort` that is used. */
type ParentPort = {
  postMessage(message: unknown): void
  on(event: 'message', listener: (message: { data: unknown }) => void): void
}
const { parentPort } = process as { parentPort?: ParentPort }

const reply = (message: ModelReply) =>
  parentPort ? parentPort.postMessage(message) : void (process.connected && process.send?.(message))
const cancelling = new AbortController()
const reportMs = 100
let reportedAt = -Infinity

function take(command: ModelCommand): void {
  if (command.type === 'cancel') return cancelling.abort()
  doModelWork(
    command.work,
    (progress) => {
      if (performance.now() - reportedAt < reportMs) return
      reportedAt = performance.now()
      reply({ type: 'progress', progress })
    },
    cancelling.signal,
  ).then(
    (value) => reply({ type: 'done', value }),
    (error: unknown) =>
      reply(cancelling.signal.aborted ? { type: 'cancelled' } : { type: 'failed', error: reportError(error) }),
  )
}

try {
  setPriority(constants.priority.PRIORITY_LOW)
} catch {
  // Not allowed here: it then runs as any other.
}
if (parentPort) parentPort.on('message', ({ data }) => take(data as ModelCommand))
else {
  process.on('disconnect', () => process.exit())
  process.on('message', (message) => take(message as ModelCommand))
}
