import { writeFileSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { fileURLToPath } from 'node:url'
import type { EngineCommand, EngineEvent, Transport } from './protocol.ts'
import { probeArgument, runProbe } from './probe.ts'
import { runSelfTest, selfTestArgument } from './self-test.ts'
import { serve } from './serve.ts'

// The engine as a process of its own: Electron's utility process, or a Node child process with the same code.

/** The part of Electron's `process.parentPort` that is used; Electron's types stay out of the engine. */
type ParentPort = {
  postMessage(message: unknown): void
  on(event: 'message', listener: (message: { data: unknown }) => void): void
}

function transport(): Transport<EngineEvent, EngineCommand> {
  const { parentPort } = process as { parentPort?: ParentPort }
  if (parentPort) {
    return {
      post: (event) => parentPort.postMessage(event),
      onMessage: (listener) => parentPort.on('message', ({ data }) => listener(data as EngineCommand)),
    }
  }
  if (!process.send) throw new Error('the engine is started by Vignette, not by hand')
  // Whoever started it is gone: nobody would get the pictures.
  process.on('disconnect', () => process.exit())
  return {
    post: (event) => void (process.connected && process.send?.(event)),
    onMessage: (listener) => void process.on('message', (message) => listener(message as EngineCommand)),
  }
}

/** The window comes first, for the processor and when memory runs out. Best effort: a refusal changes nothing else. */
function stepBack(): void {
  try {
    setPriority(constants.priority.PRIORITY_BELOW_NORMAL)
    if (process.platform === 'linux') writeFileSync('/proc/self/oom_score_adj', '500')
  } catch {
    // Not allowed here.
  }
}

const probed = process.argv.indexOf(probeArgument)
if (probed >= 0) {
  void runProbe(process.argv[probed + 1])
} else if (process.argv.includes(selfTestArgument)) {
  void runSelfTest()
} else {
  stepBack()
  serve(transport(), fileURLToPath(import.meta.url), () => process.exit())
}
