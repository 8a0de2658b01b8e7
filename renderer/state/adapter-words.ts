import type { AdapterRecord, LinkedKind, RootReport } from '../../preload/contract/adapters.ts'
import { t } from '../strings.ts'
import type { AdapterSort, AdapterView } from './adapter-search.ts'
import { preferredWeight, weightText } from './weights.ts'

// What the library says of adapters, in words.

export type VerdictWords = { text: string; tone: 'good' | 'so' | 'no' | 'bad' }

export function verdictWords({ verdict, matched, total }: AdapterRecord): VerdictWords {
  switch (verdict.fit) {
    case 'fits':
      return { text: t('Fits'), tone: 'good' }
    case 'partly':
      return { text: t('Fits {n} %', { n: total > 0 ? Math.floor((100 * matched) / total) : 0 }), tone: 'so' }
    case 'wrong-family':
      return { text: t('Other model'), tone: 'no' }
    case 'unsupported':
      return { text: t('Not yet'), tone: 'no' }
    case 'refused':
      return { text: t('Damaged'), tone: 'bad' }
  }
}

/** "0.60 (0.40–0.90)" */
export function weightsText(record: Pick<AdapterRecord, 'preferredWeight' | 'weightRange' | 'role'>): string {
  const { weightRange } = record
  const weight = weightText(preferredWeight(record))
  return weightRange ? `${weight} (${weightText(weightRange[0])}–${weightText(weightRange[1])})` : weight
}

export const viewWords = (): Record<AdapterView, string> => ({
  'in-use': t('In use'),
  favourites: t('Favourites'),
  unused: t('Unused'),
  missing: t('Missing'),
  duplicates: t('Duplicates'),
})

export const sortWords = (): Record<AdapterSort, string> => ({
  name: t('Name'),
  newest: t('Newest'),
  'last-used': t('Last used'),
  'most-used': t('Most used'),
  rating: t('Rating'),
  size: t('Size'),
})

export const kindWords = (): Record<LinkedKind, string> => ({
  adapters: t('Adapters'),
  checkpoints: t('Models'),
  embeddings: t('Embeddings'),
  vae: t('Image decoders (VAE)'),
  controlnet: t('ControlNets'),
})

export const layoutWords = (): Record<RootReport['layout'], string> => ({
  comfyui: t('A ComfyUI folder'),
  a1111: t('A folder of the A1111 or Forge kind'),
  plain: t('A folder of adapters'),
})
