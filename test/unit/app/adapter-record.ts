import type { AdapterRecord } from '../../../preload/contract/adapters.ts'

/** A record of the library that fits and says nothing more. */
export function adapterRecord(id: string, part: Partial<AdapterRecord> = {}): AdapterRecord {
  const name = id.slice(id.lastIndexOf('/') + 1)
  return {
    ...{ id, place: 'own', modifiedAt: 0, folder: '', name, fileName: `${name}.safetensors`, bytes: 1 },
    ...{ kinds: ['LoRA'], precision: 'fp16', matched: 4, total: 4, hasTextEncoder: false, triggers: [], tags: [] },
    ...{ role: 'style', verdict: { fit: 'fits', message: '' }, notices: [] },
    ...{ ownTags: [], collections: [], isFavourite: false, isMature: false, timesUsed: 0, samples: [], edited: [] },
    ...part,
  }
}
