import { constants, setPriority } from 'node:os'
import { reportError } from '../../models/errors.ts'
import type { PictureCommand, PictureReply } from './picture-client.ts'
import { doPictureTask } from './picture-tasks.ts'

// The picture worker as a process of its own: decodes, shrinks and compares picture files, one after the other.

/** The part of Electron's `process.parentPort` that is used. */
type ParentPort = {
  postMessage(message: unknown): void
  on(event: 'message', listener: (message: { data: unknown }) => void): void
}
const { parentPort } = process as { parentPort?: ParentPort }

const reply = (message: PictureReply) =>
  parentPort ? parentPort.postMessage(message) : void (process.connected && process.send?.(message))

let last: Promise<unknown> = Promise.resolve()
function take({ id, task }: PictureCommand): void {
  last = last.then(() =>
    doPictureTask(task).then(
      (value) => reply({ id, value }),
      (error: unknown) => reply({ id, error: reportError(error) }),
    ),
  )
}

try {
  setPriority(constants.priority.PRIORITY_BELOW_NORMAL)
} catch {
  // Not allowed here: it then runs as any other.
}
if (parentPort) parentPort.on('message', ({ data }) => take(data as PictureCommand))
else {
  process.on('disconnect', () => process.exit())
  process.on('message', (message) => take(message as PictureCommand))
}
