import { parentPort } from 'node:worker_threads'
import { reportError } from '../../models/errors.ts'
import { adapterReader, type Against } from './adapter-reader.ts'
import type { ReaderAsk, ReaderReply } from './adapter-child.ts'

// Reads adapter files in a thread of its own: a header is milliseconds of calculation, a library thousands of them, and
// the window's process should never compute for longer than a hundredth of a second.

const tell = (reply: ReaderReply) => parentPort!.postMessage(reply)

/** Models to judge by come once, not with every file. */
const shapes = new Map<string, Against>()
const running = new Map<number, AbortController>()

async function take(ask: ReaderAsk): Promise<void> {
  switch (ask.do) {
    case 'shape':
      shapes.set(ask.against.key, ask.against)
      return
    case 'stop':
      running.get(ask.id)?.abort()
      return
    case 'inspect':
    case 'hash': {
      const controller = new AbortController()
      running.set(ask.id, controller)
      try {
        const value =
          ask.do === 'hash'
            ? await adapterReader.hash(ask.file, controller.signal)
            : await adapterReader.inspect(ask.file, shapes.get(ask.key) ?? { key: ask.key })
        tell({ id: ask.id, value })
      } catch (error) {
        tell({ id: ask.id, error: reportError(error) })
      } finally {
        running.delete(ask.id)
      }
      return
    }
    default:
      ask satisfies never
  }
}

parentPort!.on('message', (ask: ReaderAsk) => void take(ask))
