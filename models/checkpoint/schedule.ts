import type { ConfigJson } from '../config-json.ts'
import { VignetteError } from '../errors.ts'
import type { FamilyId, NoiseSchedule, PredictionType } from '../family.ts'
import { sdNoiseSchedule } from '../family.ts'
import type { ModelManifest } from '../manifest.ts'
import type { TensorTable } from '../graph/weights.ts'

export type ScheduleFinding = {
  schedule: NoiseSchedule
  /** False where nothing in the file says what the network predicts, and only running it can tell (SD 2). */
  isCertain: boolean
}

/**
 * What a single file says of its noise schedule. The weights of SD 2 models for 512 and 768 pixels look alike but
 * predict different things; v is then assumed until the probe has run.
 */
export function scheduleOfFile(
  family: FamilyId,
  tensors: TensorTable,
  metadata: ReadonlyMap<string, string>,
): ScheduleFinding {
  const zeroTerminalSnr = tensors.has('ztsnr')
  const said = metadata.get('modelspec.prediction_type') ?? metadata.get('modelspec.predict_key')
  const certain = (predictionType: PredictionType): ScheduleFinding => ({
    schedule: { ...sdNoiseSchedule, predictionType, zeroTerminalSnr },
    isCertain: true,
  })
  if (tensors.has('v_pred')) return certain('v_prediction')
  if (said !== undefined && /^v(_pred|_prediction|-prediction)?$/i.test(said)) return certain('v_prediction')
  if (said !== undefined && /^eps(ilon)?$/i.test(said)) return certain('epsilon')
  if (family !== 'sd2') return certain('epsilon')
  return { schedule: { ...sdNoiseSchedule, predictionType: 'v_prediction', zeroTerminalSnr }, isCertain: false }
}

/** What a folder's scheduler_config.json says; diffusers' own defaults where a field is missing. */
export function scheduleOfConfig(label: string, json: ConfigJson | undefined): ScheduleFinding {
  if (!json) return { schedule: sdNoiseSchedule, isCertain: false }
  const refuse = (field: string) =>
    new VignetteError(
      'checkpoint-unsupported',
      `${label} was trained with ${field} = ${JSON.stringify(json[field])}, which Vignette cannot run yet.`,
      {
        hint: 'Its noise schedule is of another kind than those of Stable Diffusion.',
      },
    )
  const number = (field: string, fallback: number) => (typeof json[field] === 'number' ? json[field] : fallback)
  const betaSchedule = json.beta_schedule ?? 'linear'
  if (betaSchedule !== 'scaled_linear' && betaSchedule !== 'linear') throw refuse('beta_schedule')
  const predictionType = json.prediction_type ?? 'epsilon'
  if (predictionType !== 'epsilon' && predictionType !== 'v_prediction') throw refuse('prediction_type')
  if (Array.isArray(json.trained_betas)) throw refuse('trained_betas')
  const schedule: NoiseSchedule = {
    betaStart: number('beta_start', 0.0001),
    betaEnd: number('beta_end', 0.02),
    betaSchedule,
    trainTimesteps: number('num_train_timesteps', 1000),
    predictionType,
    zeroTerminalSnr: json.rescale_betas_zero_snr === true,
  }
  return { schedule, isCertain: true }
}

const samplerOfClass: Record<string, string> = {
  DDIMScheduler: 'ddim',
  EulerDiscreteScheduler: 'euler',
  EulerAncestralDiscreteScheduler: 'euler_a',
  HeunDiscreteScheduler: 'heun',
  UniPCMultistepScheduler: 'unipc',
  LCMScheduler: 'lcm',
  TCDScheduler: 'tcd',
}

const fewSteps = (sampler: string, steps: number): ModelManifest['defaults'] => ({
  steps,
  guidanceScale: 1,
  sampler,
  schedule: 'trailing',
})

/**
 * Steps, guidance and sampler to begin with. Distilled models need few steps and no guidance: a folder says so by its
 * scheduler, a single file by nothing but its name (Turbo, Lightning, LCM), which people do put there.
 */
export function defaultsFor(
  label: string,
  json: ConfigJson | undefined,
  isZeroSnr: boolean,
): ModelManifest['defaults'] {
  const sampler = samplerOfClass[String(json?._class_name)]
  const isTrailing = json?.timestep_spacing === 'trailing'
  if (sampler === 'lcm' || sampler === 'tcd') return fewSteps(sampler, 6)
  if (isTrailing && (sampler === 'euler' || sampler === 'euler_a') && !isZeroSnr) return fewSteps(sampler, 4)
  if (!json) {
    const word = /(?:^|[^a-z])(turbo|lightning|lcm)(?:$|[^a-z])/i.exec(label)?.[1].toLowerCase()
    if (word === 'turbo') return fewSteps('euler_a', 4)
    if (word === 'lightning') return fewSteps('euler', 6)
    if (word === 'lcm') return fewSteps('lcm', 6)
  }
  if (sampler === 'ddim' && isTrailing) return { steps: 30, guidanceScale: 7, sampler, schedule: 'trailing' }
  return { steps: 25, guidanceScale: 7, sampler: 'dpmpp_2m', schedule: isZeroSnr ? 'trailing' : 'karras' }
}
