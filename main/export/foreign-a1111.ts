import type { RecalledRecipe } from '../../preload/contract/images.ts'
import { checked, numberOf, samplerValues, type ForeignValue } from './foreign.ts'
import { adapterTagsOf, parseA1111 } from './metadata.ts'

/** Keys of the parameter line that are read; every other one is shown as it is. */
const readKeys = [
  'Steps',
  'Sampler',
  'Schedule type',
  'CFG scale',
  'Seed',
  'Size',
  'Model',
  'Model hash',
  'Denoising strength',
  'Clip skip',
  'Lora hashes',
  'Version',
]

/** The `parameters` text of AUTOMATIC1111's web UI, Forge, SD.Next and their kin; undefined for a text that is none. */
export function fromA1111(text: string): RecalledRecipe | undefined {
  const parsed = parseA1111(text)
  const { negativePrompt, parameters } = parsed
  if (parameters.size === 0) return undefined
  const { prompt, adapters } = adapterTagsOf(parsed)
  const [, width, height] = /^(\d+)\s*x\s*(\d+)$/.exec(parameters.get('Size') ?? '') ?? []
  const value = (key: string, field: ForeignValue['field']): ForeignValue => ({
    key,
    value: numberOf(parameters.get(key)) ?? parameters.get(key),
    field,
  })
  const values: ForeignValue[] = [
    { key: 'Prompt', value: prompt, field: 'prompt' },
    { key: 'Negative prompt', value: negativePrompt, field: 'negativePrompt' },
    value('Seed', 'seed'),
    value('Steps', 'steps'),
    value('CFG scale', 'guidanceScale'),
    value('Denoising strength', 'strength'),
    value('Clip skip', 'clipSkip'),
    { key: 'Width', value: numberOf(width), field: 'width' },
    { key: 'Height', value: numberOf(height), field: 'height' },
    ...samplerValues(parameters.get('Sampler'), parameters.get('Schedule type'), {
      sampler: 'Sampler',
      schedule: 'Schedule type',
    }),
    ...[...parameters].filter(([key]) => !readKeys.includes(key)).map(([key, value]) => ({ key, value })),
  ]
  const name = parameters.get('Model')
  const hash = parameters.get('Model hash')
  return checked({
    origin: originOf(parameters.get('Version')),
    values,
    ...(name || hash ? { model: { name: name ?? hash!, ...(hash ? { sha256: hash } : {}) } } : {}),
    adapters: adapters.map(({ hash: sha256, ...tag }) => ({ ...tag, ramp: 'flat', ...(sha256 ? { sha256 } : {}) })),
  })
}

/** Forge writes f2.0.1…, SD.Next a date or commit, AUTOMATIC1111 v1.9.4; others their own name. */
function originOf(version: string | undefined): string {
  if (version === undefined) return 'AUTOMATIC1111 or a kin of it'
  if (/^f\d/.test(version)) return `Forge ${version}`
  return /^v?\d/.test(version) ? `AUTOMATIC1111 ${version}` : version
}
