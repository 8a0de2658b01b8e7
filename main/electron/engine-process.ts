import { utilityProcess } from 'electron'
import { fork } from 'node:child_process'
import { VignetteError } from '../../models/errors.ts'
import type { SetUpResult } from '../app/set-up.ts'
import type { ModelWorker } from '../app/model-work.ts'
import { forkChild, type Child, type EngineChild } from '../engine/client.ts'
import type { PictureChild } from '../engine/picture-client.ts'

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
  return startChild(entry, 'Vignette engine')
}

/** Starts a process for work on models from its built file. */
export function startModelWorker(entry: string): ModelWorker {
  return startChild(entry, 'Vignette models')
}

/** Starts the picture worker from its built file. */
export function startPictures(entry: string): PictureChild {
  return startChild(entry, 'Vignette pictures')
}

function startChild<Out, In>(entry: string, name: string): Child<Out, In> {
  const execPath = ownNode()
  return execPath === undefined ? startUtility(entry, name) : forkChild(entry, nodeOptions(execPath))
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

function startUtility<Out, In>(entry: string, serviceName: string): Child<Out, In> {
  const child = utilityProcess.fork(entry, [], { serviceName })
  let isGone = false
  child.once('exit', () => (isGone = true))
  return {
    post(message: Out) {
      // Posting to one that has ended can take this process down.
      if (!isGone) child.postMessage(message)
    },
    onMessage: (listener) => void child.on('message', (message: In) => listener(message)),
    onExit: (listener) => void child.once('exit', (code) => listener(code === null ? 'killed' : `code ${code}`)),
    kill() {
      // Its own kill asks politely, which a process deep in a calculation does not hear.
      if (child.pid === undefined) child.kill()
      else if (!isGone) process.kill(child.pid, 'SIGKILL')
    },
  }
}
