import type { ErrorReport } from '../../models/errors.ts'
import type { GenerateRequest } from '../../preload/contract/generate.ts'
import type { DeviceReport, ModelCandidate, ModelTask } from '../../preload/contract/models.ts'
import type { ModeName } from '../../preload/limits.ts'

/** Which execution provider to use; `auto` takes the GPU when it proves itself, else the CPU. */
export type DeviceChoice = 'auto' | 'cpu' | 'gpu'

/** A request with its model resolved to a folder. `id` comes back in every event about it. */
export type EngineJob = {
  id: string
  modelFolder: string
  /** Defaults filled in: seed, size, steps, sampler, schedule and guidance are always set. */
  request: GenerateRequest &
    Required<Pick<GenerateRequest, 'seed' | 'width' | 'height' | 'steps' | 'sampler' | 'schedule' | 'guidanceScale'>>
  /** Instead of `count` pictures one after the other: these, in one batch. */
  batch?: BatchPicture[]
  /**
   * Where what is drawn of the picture is kept (checkpoint.ts): the same job with the same file goes on from there, after
   * `cancel` (which is how one is paused), a crash, or a power cut. The engine never removes it: that is for whoever has
   * the picture safe, or gives it up. Only for jobs of speed `exact`; others begin again.
   */
  checkpointFile?: string
  /** At most so often, or each step when those are longer. 5 s when left out. */
  checkpointEveryMs?: number
  /** Wants a small WebP of each picture as well. */
  makesThumb?: boolean
}

/** One picture of a mixed batch: what differs from the request; the rest is shared, and all are drawn side by side. */
export type BatchPicture = Partial<
  Pick<EngineJob['request'], 'prompt' | 'negativePrompt' | 'seed' | 'guidanceScale' | 'adapters'>
>

export type EngineCommand =
  /** `mode`: how 4-bit models run on the processor; left out, the engine chooses for each. */
  | { type: 'start'; device: DeviceChoice; mode?: ModeName; memoryBudgetBytes?: number; threads?: number }
  | { type: 'run'; job: EngineJob }
  /** Takes effect at the end of the running step. */
  | { type: 'cancel'; jobId: string }
  /** Gives the memory of the model back, unless a job runs; the next job loads it again. */
  | { type: 'unload' }
  | { type: 'stop' }

export type EngineEvent =
  | { type: 'ready'; device: DeviceReport }
  /** The device asked for cannot be used; every job will fail with the same error. */
  | { type: 'unavailable'; error: ErrorReport }
  | { type: 'phase'; jobId: string; index: number; phase: 'loading' | 'encoding' | 'denoising' | 'decoding' | 'saving' }
  | { type: 'step'; jobId: string; index: number; step: number; steps: number; previewPng?: Uint8Array }
  /** An earlier run had come this far; it goes on with the next step. */
  | { type: 'resumed'; jobId: string; index: number; step: number; steps: number; previewPng?: Uint8Array }
  /** A finished picture: PNG bytes that carry their recipe, and a WebP of at most 480 × 480 where one was asked for. */
  | {
      type: 'image'
      jobId: string
      index: number
      seed: number
      width: number
      height: number
      png: Uint8Array
      thumb?: Uint8Array
    }
  /** The adapters are in their slots; `ms` is what that took beyond what the job before had left in place. */
  | { type: 'applied'; jobId: string; ms: number }
  | { type: 'notice'; jobId: string; message: string }
  | { type: 'finished'; jobId: string }
  | { type: 'cancelled'; jobId: string }
  | { type: 'failed'; jobId: string; error: ErrorReport }

/** How commands and events travel: Electron's parentPort, Node's process.send, or a direct call. */
export interface Transport<Out, In> {
  post(message: Out): void
  onMessage(listener: (message: In) => void): void
}

/** Work on models that takes too long for the window's process; see model-tasks.ts. */
export type ModelWork =
  | { type: 'inspect'; source: string; modelsFolder: string }
  | { type: 'import'; source: string; folder: string; name: string; isFourBit: boolean }
  | { type: 'four-bit'; model: string; folder: string; name: string }
  | { type: 'verify'; folder: string }

/** What inspecting gives: the file or folder that is meant, and its card. */
export type ModelLook = Required<Pick<ModelCandidate, 'source' | 'card'>>

export type ModelProgress = Pick<ModelTask, 'phase' | 'fraction' | 'doneBytes' | 'totalBytes' | 'layer'>

export type ModelCommand = { type: 'work'; work: ModelWork } | { type: 'cancel' }

export type ModelReply =
  | { type: 'progress'; progress: ModelProgress }
  | { type: 'done'; value: unknown }
  | { type: 'failed'; error: ErrorReport }
  | { type: 'cancelled' }
