import { utilityProcess } from 'electron'
import { forkEngine, type EngineChild } from '../engine/client.ts'
import type { EngineEvent } from '../engine/protocol.ts'

/** sharp, which the engine decodes pictures with, needs Node-API 9: Electron 27 and later. */
const neededNodeApi = 9

/**
 * Starts the engine: Electron's utility process, or, inside an Electron too old for the engine's native packages, the
 * Node of this computer as a child process. The code is the same; `entry` is its built file. VIGNETTE_NODE names a Node
 * to use whatever the version, and when empty none.
 */
export function startEngine(entry: string): EngineChild {
  const isOld = Number(process.versions.napi ?? 0) < neededNodeApi
  const node = process.env.VIGNETTE_NODE ?? (isOld ? 'node' : '')
  return node === '' ? startUtility(entry) : startNode(entry, node)
}

function startUtility(entry: string): EngineChild {
  const child = utilityProcess.fork(entry, [], { serviceName: 'Vignette engine' })
  let isGone = false
  child.once('exit', () => (isGone = true))
  return {
    post(message) {
      // Posting to one that has ended can take this process down.
      if (!isGone) child.postMessage(message)
    },
    onMessage: (listener) => void child.on('message', (message: EngineEvent) => listener(message)),
    onExit: (listener) => void child.once('exit', (code) => listener(code === null ? 'killed' : `code ${code}`)),
    kill() {
      // Its own kill asks politely, which a process deep in a calculation does not hear.
      if (child.pid === undefined) child.kill()
      else if (!isGone) process.kill(child.pid, 'SIGKILL')
    },
  }
}

function startNode(entry: string, execPath: string): EngineChild {
  const env = { ...process.env }
  // Meant for Electron and for tools around it, not for a plain Node.
  delete env.NODE_OPTIONS
  delete env.ELECTRON_RUN_AS_NODE
  return forkEngine(entry, { execPath, execArgv: [], env })
}
