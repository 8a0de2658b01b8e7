import { utilityProcess } from 'electron'
import { fork } from 'node:child_process'
import { VignetteError } from '../../models/errors.ts'
import type { SetUpResult } from '../app/set-up.ts'
import { forkEngine, type EngineChild } from '../engine/client.ts'
import { forkPictures, type PictureChild, type PictureCommand, type PictureReply } from '../engine/picture-client.ts'
import type { EngineCommand, EngineEvent } from '../engine/protocol.ts'

/** sharp, which the engine decodes pictures with, needs Node-API 9: Electron 27 and later. */
const neededNodeApi = 9

/**
 * What work outside this process runs on: Electron's utility processes (undefined), or, inside an Electron too old for
 * the engine's native packages, the Node of this computer. The code is the same. VIGNETTE_NODE names a Node to use
 * whatever the version, and when empty none.
 */
function ownNode(): string | undefined {
  const isOld = Number(process.versions.napi ?? 0) < neededNodeApi
  return (process.env.VIGNETTE_NODE ?? (isOld ? 'node' : '')) || undefined
}

/** Starts the engine from its built file. */
export function startEngine(entry: string): EngineChild {
  const execPath = ownNode()
  return execPath === undefined
    ? startUtility<EngineCommand, EngineEvent>(entry, 'Vignette engine')
    : forkEngine(entry, nodeOptions(execPath))
}

/** Starts the picture worker from its built file. */
export function startPictures(entry: string): PictureChild {
  const execPath = ownNode()
  return execPath === undefined
    ? startUtility<PictureCommand, PictureReply>(entry, 'Vignette pictures')
    : forkPictures(entry, nodeOptions(execPath))
}

/** Puts the starter model into `modelsFolder`, from the built file of set-up.ts. */
export async function setUp(entry: string, modelsFolder: string): Promise<void> {
  const execPath = ownNode()
  const child =
    execPath === undefined
      ? utilityProcess.fork(entry, [modelsFolder])
      : fork(entry, [modelsFolder], nodeOptions(execPath))
  const result = await new Promise<SetUpResult | undefined>((resolve, reject) => {
    const emitter: NodeJS.EventEmitter = child
    emitter.once('message', (message: SetUpResult) => (resolve(message), child.kill()))
    emitter.once('exit', () => resolve(undefined))
    emitter.once('error', reject)
  })
  if (!result) throw new Error('the process that sets up the starter model ended early')
  if (result.error) throw new VignetteError(result.error.code, result.error.message, { hint: result.error.hint })
}

function nodeOptions(execPath: string) {
  const env = { ...process.env }
  // Meant for Electron and for tools around it, not for a plain Node.
  delete env.NODE_OPTIONS
  delete env.ELECTRON_RUN_AS_NODE
  return { execPath, execArgv: [], env }
}

function startUtility<Out, In>(entry: string, serviceName: string) {
  const child = utilityProcess.fork(entry, [], { serviceName })
  let isGone = false
  child.once('exit', () => (isGone = true))
  return {
    post(message: Out) {
      // Posting to one that has ended can take this process down.
      if (!isGone) child.postMessage(message)
    },
    onMessage: (listener: (message: In) => void) => void child.on('message', (message: In) => listener(message)),
    onExit: (listener: (reason: string) => void) =>
      void child.once('exit', (code) => listener(code === null ? 'killed' : `code ${code}`)),
    kill() {
      // Its own kill asks politely, which a process deep in a calculation does not hear.
      if (child.pid === undefined) child.kill()
      else if (!isGone) process.kill(child.pid, 'SIGKILL')
    },
  }
}
