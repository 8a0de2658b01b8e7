import type { LayerErrors } from '../../models/quantize/layer.ts'
import type { QuantizeStep } from '../../models/quantize/policy.ts'

export type QuantizeProgress = {
  phase: 'checking' | 'calibrating' | 'quantizing' | 'verifying'
  /** Of the whole, 0 to 1. */
  fraction: number
  /** While quantising: the layer done last, its number, and how many there are. */
  layer?: { path: string; done: number; of: number }
}

/** How well the layers came out: signal to noise of their outputs, in dB. Without calibration, of their weights. */
export type Quality = {
  layers: number
  isCalibrated: boolean
  medianDb: number
  /** With int8 activations as the fast mode has them. */
  medianFastDb: number
  worst: { path: string; db: number }
}

/** What each phase takes of the time, about: checking, calibrating, quantising, verifying. */
const shares = { calibrated: [0.02, 0.28, 0.68, 0.02], blind: [0.03, 0, 0.94, 0.03] }

/** One fraction for all phases together. */
export function phaseReporter(isCalibrated: boolean, onProgress: ((progress: QuantizeProgress) => void) | undefined) {
  const [checking, calibrating, quantizing, verifying] = isCalibrated ? shares.calibrated : shares.blind
  const report = (phase: QuantizeProgress['phase'], before: number, share: number, part: number, more = {}) =>
    onProgress?.({ phase, fraction: Math.min(0.999, before + share * Math.min(1, part)), ...more })
  return {
    bytes(phase: 'checking' | 'verifying', total: number) {
      let done = 0
      return (bytes: number) => {
        done += bytes
        const [before, share] = phase === 'checking' ? [0, checking] : [1 - verifying, verifying]
        report(phase, before, share, done / total)
      }
    },
    calibrating: (part: number) => report('calibrating', checking, calibrating, part),
    /** Layers by the number of their weights. */
    layers(steps: readonly QuantizeStep[]) {
      const size = ({ layers }: QuantizeStep) => layers.reduce((sum, { n, k }) => sum + n * k, 0)
      const total = steps.reduce((sum, step) => sum + size(step), 0)
      const of = steps.reduce((sum, { layers }) => sum + layers.length, 0)
      let weights = 0
      let done = 0
      return (step: QuantizeStep) => {
        weights += size(step)
        done += step.layers.length
        const layer = { path: step.layers[0].path, done, of }
        report('quantizing', checking + calibrating, quantizing, weights / total, { layer })
      }
    },
  }
}

/** Errors beyond what halves can resolve count as that. */
const decibels = (error: number) => -10 * Math.log10(Math.max(error, 1e-12))

export function qualityOf(errors: ReadonlyMap<string, LayerErrors>, isCalibrated: boolean): Quality {
  const layers = [...errors].map(([path, error]) => ({
    path,
    db: decibels(error.weights),
    fast: decibels(error.activations),
  }))
  const median = (values: number[]) => values.sort((a, b) => a - b)[Math.floor(values.length / 2)]
  const [worst] = [...layers].sort((a, b) => a.db - b.db)
  return {
    layers: layers.length,
    isCalibrated,
    medianDb: median(layers.map(({ db }) => db)),
    medianFastDb: median(layers.map(({ fast }) => fast)),
    worst: { path: worst.path, db: worst.db },
  }
}

export type Phases = ReturnType<typeof phaseReporter>
