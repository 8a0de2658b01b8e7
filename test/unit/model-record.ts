import type { ModelRecord } from '../../preload/contract/models.ts'

/** A model as the window knows it, whole and ready. */
export function modelRecordOf(part: Partial<ModelRecord> = {}): ModelRecord {
  const defaults = { steps: 20, guidanceScale: 4, sampler: 'dpmpp_2m', schedule: 'trailing' }
  const { nativeWidth: width = 256, nativeHeight: height = 256 } = part
  return {
    ...{
      id: 'starter',
      name: 'Starter',
      family: 'sd15',
      familyName: 'Stable Diffusion 1.x',
      folder: '/models/starter',
    },
    ...{ nativeWidth: width, nativeHeight: height, weightBytes: 1, diskBytes: 1, storage: 'fp16', state: 'ready' },
    ...{ isLoaded: false, isStarter: true, isHidden: false, isDefault: true, ownDefaults: {}, defaults },
    memory: { neededBytes: 1, availableBytes: 2, fit: 'fits' },
    factoryDefaults: { ...defaults, width, height },
    source: { file: 'starter', sha256: '0'.repeat(64), bytes: 1 },
    check: { state: 'unchecked' },
    ...part,
  }
}
