import type { Quality, QuantizeProgress } from '../engine/quantize-progress.ts'

/** What the progress line says. */
export function quantizeStep({ phase, layer }: QuantizeProgress): string {
  switch (phase) {
    case 'checking':
      return 'checking the weights'
    case 'calibrating':
      return 'watching the network draw'
    case 'quantizing':
      return layer ? `layer ${layer.done} of ${layer.of}` : 'layers'
    case 'verifying':
      return 'reading it back'
    default:
      return phase satisfies never
  }
}

/** One line on how true the layers stayed. */
export function qualityLine({ layers, isCalibrated, medianDb, medianFastDb, worst }: Quality): string {
  const what = isCalibrated ? 'Outputs of layers' : 'Weights of layers, without calibration'
  return (
    `${what}: ${medianDb.toFixed(1)} dB signal to noise in the middle of ${layers}` +
    `${isCalibrated ? ` (${medianFastDb.toFixed(1)} in fast mode)` : ''}, ` +
    `${worst.db.toFixed(1)} at worst (${worst.path}).`
  )
}
