import { predictionProbe } from '../../models/checkpoint/convert.ts'
import { openNetworks } from './networks.ts'

/** Runs the UNet once on a constant picture: the answer shows what it was trained to predict. */
export async function probePrediction(folder: string): Promise<number> {
  const networks = openNetworks(folder)
  const { manifest } = networks
  try {
    const filled = (shape: number[], value: number) => ({
      data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
      shape,
    })
    const [n, , h, w] = predictionProbe.sample
    const context = [predictionProbe.context[0], predictionProbe.context[1], manifest.textEncoders[0].width]
    const { out_sample: out } = await networks.run('unet', {
      sample: filled([n, manifest.latents.channels, h, w], predictionProbe.value),
      timestep: filled([n], predictionProbe.timestep),
      encoder_hidden_states: filled(context, predictionProbe.value),
    })
    return out.data.reduce((sum, value) => sum + value - predictionProbe.value, 0) / out.data.length
  } finally {
    await networks.release()
  }
}
