import { fileURLToPath } from 'node:url'
import { EngineClient, type EngineChild, type EngineSettings } from './client.ts'
import type { EngineCommand, EngineEvent } from './protocol.ts'
import { serve } from './serve.ts'

/** The engine inside this very process: for the command line and tests. It cannot be killed, only asked to stop. */
export function connectDirect(settings: EngineSettings = {}): EngineClient {
  return new EngineClient(openDirect, { ...settings, cancelGraceMs: Infinity })
}

function openDirect(): EngineChild {
  const toEngine: ((command: EngineCommand) => void)[] = []
  const toClient: ((event: EngineEvent) => void)[] = []
  const atExit: ((reason: string) => void)[] = []
  serve(
    {
      post: (event) => toClient.forEach((listener) => listener(event)),
      onMessage: (listener) => void toEngine.push(listener),
    },
    fileURLToPath(new URL('./index.ts', import.meta.url)),
    () => atExit.forEach((listener) => listener('stopped')),
  )
  return {
    post: (command) => toEngine.forEach((listener) => listener(command)),
    onMessage: (listener) => void toClient.push(listener),
    onExit: (listener) => void atExit.push(listener),
    kill: () => {},
  }
}
