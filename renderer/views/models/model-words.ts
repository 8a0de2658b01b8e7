import type { Capabilities, ModelRecord, ModelTask } from '../../../preload/contract/models.ts'
import { t } from '../../strings.ts'

/** How precisely weights are stored, as people say it. */
export const storageWords: Record<ModelRecord['storage'], string> = {
  int4: t('4-bit'),
  fp16: t('16-bit'),
  fp32: t('32-bit'),
}

export const stateWords: Record<ModelRecord['state'], string> = {
  ready: t('Ready'),
  loading: t('Loading'),
  'missing-part': t('Part missing'),
  damaged: t('Damaged'),
  'too-big': t('Too big'),
}

export const fitWords: Record<ModelRecord['memory']['fit'], string> = {
  fits: t('Fits'),
  tight: t('Tight'),
  'too-big': t('Too big'),
}

export const checkWords: Record<ModelRecord['check']['state'], string> = {
  unchecked: t('not checked yet'),
  recorded: t('hash recorded'),
  verified: t('verified'),
  changed: t('changed'),
}

const phaseWords: Record<NonNullable<ModelTask['phase']>, string> = {
  checking: t('Checking the file'),
  copying: t('Copying weights'),
  building: t('Building graphs'),
  calibrating: t('Watching the network draw'),
  quantizing: t('Storing layers in four bits'),
  verifying: t('Reading it back'),
}

/** What a piece of work is doing. */
export function taskWords({ kind, status, phase, layer, isStopping, isResumed }: ModelTask): string {
  if (isStopping) return t('Stopping …')
  switch (status) {
    case 'waiting':
      return t('Waiting')
    case 'failed':
      return t('Failed')
    case 'cancelled':
      return t('Cancelled')
    case 'done':
      return kind === 'verify' ? t('Checked') : t('Ready')
    case 'running': {
      if (layer) return t('Layer {done} of {of}', layer)
      const words = phase ? phaseWords[phase] : t('Starting')
      return isResumed ? t('{what} – going on after a restart', { what: words }) : words
    }
  }
}

/** What can be done with a model, and what cannot, each with its reason. */
export function capabilityWords(of: Capabilities): { can: string[]; cannot: string[] } {
  const all: [boolean, string, string][] = [
    [of.adapterSlots > 0, t('Up to {n} adapters at a time', { n: of.adapterSlots }), 'adapterSlots'],
    [of.perStepAdapterWeights, t('Adapters that act on some of the steps'), 'perStepAdapterWeights'],
    [of.negativePrompt, t('Negative prompts'), 'negativePrompt'],
    [of.promptWeights, t('Weighted words in prompts'), 'promptWeights'],
    [of.imageToImage, t('Starting from a picture'), 'imageToImage'],
    [of.distilledGuidance !== 'none', t('Guidance in one pass, with a guidance adapter'), 'distilledGuidance'],
    [of.phaseSpeed !== 'none', t('Slow and fast phases'), 'phaseSpeed'],
    [of.resumeFromLatent, t('Going on after a pause'), 'resumeFromLatent'],
    [of.deterministic, t('The same seed gives the same picture'), 'deterministic'],
    [of.conditions.max > 0, t('Guiding by edges, lines or depth'), 'conditions'],
    [of.regionalAdapters, t('Adapters for parts of the picture'), 'regionalAdapters'],
    [of.watermark !== 'none', t('Invisible marks'), 'watermark'],
    [of.tinyPreview, t('Sharp previews'), 'tinyPreview'],
  ]
  return {
    can: all.flatMap(([has, words]) => (has ? [words] : [])),
    cannot: all.flatMap(([has, words, field]) => (has ? [] : [of.reasons[field] ?? words])),
  }
}
